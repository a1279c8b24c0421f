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
      const keyed = [...body.rows].map(row => [row.cells[column].textContent.trim(), row]);
      const numbers = keyed.every(([text]) => text === "nan" || text === "inf" || text !== "" && !isNaN(text));
      const key = text => text === "inf" ? Infinity : text === "nan" ? NaN : Number(text);
      const compare = numbers
        ? (a, b) => isNaN(key(a)) - isNaN(key(b)) || (key(a) > key(b)) - (key(a) < key(b))
        : (a, b) => a.localeCompare(b, "en", { numeric: true });
      keyed.sort(([a], [b]) => down ? compare(b, a) : compare(a, b));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}
for (const button of document.querySelectorAll("button.save")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([document.getElementById("csv").textContent], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
}
