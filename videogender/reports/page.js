"use strict";
// Without this script every table is whole: its first rows in view, the others folded below.
for (const box of document.querySelectorAll(".rows")) {
  const body = box.querySelector("tbody");
  const folded = box.querySelector("details");
  if (folded) {
    body.append(...folded.querySelectorAll("tbody > tr"));
    folded.remove();
  }
  const rows = [...body.rows];
  const step = Number(box.dataset.shown);
  let limit = rows.length > step + 10 ? step : rows.length;

  const more = document.createElement("div");
  more.className = "more";
  const button = document.createElement("button");
  button.type = "button";
  const count = document.createElement("span");
  more.append(button, count);
  box.append(more);

  const choices = [...box.querySelectorAll(".choose input")];
  const chosen = (row) =>
    !choices.length || choices.some((c) => c.checked && c.value === row.dataset.group);

  const show = () => {
    let here = 0;
    let all = 0;
    for (const row of body.rows) {
      const wanted = chosen(row);
      all += wanted;
      row.hidden = !wanted || here >= limit;
      here += !row.hidden;
    }
    more.hidden = all === rows.length && here === all;
    button.hidden = here === all;
    button.textContent = `Show all ${all.toLocaleString("en")}`;
    count.textContent = `${here.toLocaleString("en")} of ${rows.length.toLocaleString("en")} shown`;
  };
  button.addEventListener("click", () => { limit = rows.length; show(); });
  for (const choice of choices) choice.addEventListener("change", show);
  if (choices.length) box.querySelector(".choose").hidden = false;

  const value = (row, column) => {
    const cell = row.cells[column];
    const key = cell.dataset.key ?? cell.textContent.trim().replaceAll(",", "");
    const parsed = key === "" ? NaN : Number(key);
    return Number.isNaN(parsed) ? key : parsed;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
      : typeof a === "number" ? -1
      : typeof b === "number" ? 1
      : a.localeCompare(b, "en", { numeric: true });
  const heads = [...box.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const sorter = head.querySelector("button");
    if (!sorter) return;
    sorter.disabled = false;
    sorter.addEventListener("click", () => {
      const was = head.getAttribute("aria-sort");
      // Large numbers are what one looks for first, and small words.
      const first = head.classList.contains("n") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = was === first ? other : first;
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      body.append(
        ...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column)))
      );
      show();
    });
  });
  // A link to a row that is not in view brings it into view.
  const reveal = () => {
    const row = location.hash && document.getElementById(location.hash.slice(1));
    if (!row || !body.contains(row) || !row.hidden) return;
    for (const choice of choices) if (choice.value === row.dataset.group) choice.checked = true;
    limit = rows.length;
    show();
    row.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  show();
  reveal();
}
