// Tables that are sorted by a click on the head of a column.

// `value` of an item is what is sorted by, `text` what is shown of it, null and undefined for none.
// `nodes`, if given, makes the cell of an item instead.
const column = (group, head, value, text, nodes) =>
    ({group, head, value, text: text ?? ((v) => fixed(v, 4)), nodes});

// Whether a column stands first in its group.
const isFirst = (columns, k) => k === 0 || columns[k - 1].group !== columns[k].group;

function rowOf(item, columns, headOf) {
  const row = make("tr", {}, make("th", {scope: "row"}, ...headOf(item)));
  columns.forEach((c, k) => {
    const value = c.value(item),
          cell = make("td", {}, ...(c.nodes ? c.nodes(item) : [c.text(value)]));
    if (typeof value === "string") cell.classList.add("text");
    if (isFirst(columns, k)) cell.classList.add("first");
    row.append(cell);
  });
  return row;
}

// A row for each item; headOf(item) are the nodes of its first cell, nameOf(item) its name as text.
function fillTable(table, caption, items, columns, headOf, nameOf) {
  const groups = make("tr", {}, make("td")), heads = make("tr"), body = make("tbody");
  const rows = items.map((item) => ({item, row: rowOf(item, columns, headOf)}));
  const sortBy = (cell, value) => {
    const way = cell.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heads.children) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
    const sorted = [...rows].sort((p, q) => {
      const a = value(p.item), b = value(q.item);
      if (typeof a === "string" && typeof b === "string") return way * a.localeCompare(b);
      return !isNumber(a) || !isNumber(b) ? isNumber(b) - isNumber(a) : way * (a - b);
    });
    body.replaceChildren(...sorted.map((entry) => entry.row));
  };
  const addHead = (text, value, classes) => {
    const button = make("button", {type: "button"}, text),
          cell = make("th", {scope: "col", class: classes}, button);
    button.addEventListener("click", () => sortBy(cell, value));
    heads.append(cell);
  };
  addHead("run", nameOf, "text");
  columns.forEach((c, k) => {
    const isText = items.some((item) => typeof c.value(item) === "string");
    if (isFirst(columns, k))
      groups.append(make(
          "th", {
            scope: "colgroup",
            class: "first",
            colspan: columns.filter((d) => d.group === c.group).length
          },
          c.group));
    addHead(
        c.head, c.value, `${isFirst(columns, k) ? "first" : ""} ${isText ? "text" : ""}`.trim());
  });
  body.append(...rows.map((entry) => entry.row));
  table.append(make("caption", {class: "unseen"}, caption), make("thead", {}, groups, heads), body);
}
