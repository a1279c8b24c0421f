// Tables are sorted by a click on a heading; equal rows keep their order.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.ariaSort = down ? "descending" : "ascending";
      const keyed = [...body.rows].map(row => [row.cells[column].dataset.key ?? row.cells[column].textContent.trim(), row]);
      const none = text => text === "" || text === "nan";
      const number = text => Number(text.replace("inf", "Infinity"));
      const numbers = keyed.every(([text]) => none(text) || !isNaN(number(text)));
      const compare = numbers ? (a, b) => (number(a) > number(b)) - (number(a) < number(b)) : (a, b) => a.localeCompare(b, "en");
      // what is missing comes last in both directions
      keyed.sort(([a], [b]) => none(a) || none(b) ? none(a) - none(b) : down ? compare(b, a) : compare(a, b));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
// A long CSV is in the page as gzip in base64.
const unpacked = async csv => {
  const bytes = Uint8Array.from(atob(csv.textContent.trim()), letter => letter.charCodeAt(0));
  return new Response(new Response(bytes).body.pipeThrough(new DecompressionStream("gzip"))).text();
};
for (const button of document.querySelectorAll("button.save[data-name]")) {
  const csv = document.getElementById("csv"), packed = csv.dataset.packed;
  if (packed && !window.DecompressionStream) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = packed ? await unpacked(csv) : csv.textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}
