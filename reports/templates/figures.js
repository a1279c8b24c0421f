// A figure whose address is #figure-NAME fills the screen; arrow keys go to the next, Escape back to the page.
const stages = [...document.querySelectorAll("figure[id^=figure-]")];
const staged = () => stages.findIndex(figure => `#${figure.id}` === decodeURIComponent(location.hash));
addEventListener("keydown", event => {
  const at = staged();
  if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowRight: 1, ArrowDown: 1, PageDown: 1, " ": 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1 }[event.key];
  const telling = document.activeElement?.matches("svg[data-series]") && event.key.startsWith("Arrow");
  if (event.key === "Escape") location.hash = stages[at].querySelector(".stage a").hash;
  else if (step && !telling) location.hash = stages[(at + step + stages.length) % stages.length].id;
  else return;
  event.preventDefault();
});
// A link into a folded part opens it; one button opens all of them, for print.
const unfold = () => document.getElementById(decodeURIComponent(location.hash.slice(1)))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
for (const button of document.querySelectorAll("button.all")) {
  button.hidden = false;
  button.addEventListener("click", () => document.querySelectorAll("details").forEach(part => part.open = true));
}
