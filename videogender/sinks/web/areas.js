// What was counted in zones and at lines, by label: a block of rows each.

import { LABELS } from "./chart.js";

const UNKNOWN = "–";
const GROUPS = ["all", ...LABELS];
const ZONE = [
  ["now", "inside", "Faces inside now"],
  ["appearances", "ever", "Faces that were ever inside"],
  ["entries", "came in", "Over the edge, while in view"],
  ["exits", "went out", "Over the edge, while in view"],
  ["dwell_seconds", "time", "Time inside, summed over faces"],
];
const LINE = [
  ["in", "in", "To the right of who looks from the first point to the second"],
  ["out", "out", "To the left"],
];

/** Fills a table; its rows stay while the same zones and lines are told. */
export function tellAreas(table, told) {
  const blocks = [
    ...(told?.zones ?? []).map((area) => ({ area, columns: ZONE })),
    ...(told?.lines ?? []).map((area) => ({ area, columns: LINE })),
  ];
  table.hidden = blocks.length === 0;
  const names = blocks.map(({ area }) => area.name).join("\n");
  if (table.dataset.names !== names) {
    table.dataset.names = names;
    table.replaceChildren(...blocks.map(emptyBlock));
  }
  blocks.forEach(({ area, columns }, i) => {
    GROUPS.forEach((group, row) => {
      const cells = table.tBodies[i].rows[row + 1].cells;
      columns.forEach(([key], column) => {
        cells[column + 1].textContent = shown(key, area[key]?.[group]);
      });
    });
  });
}

function emptyBlock({ area, columns }) {
  const body = document.createElement("tbody");
  const head = body.insertRow();
  head.append(heading(area.name, "rowgroup"));
  for (const [, text, hint] of columns) head.append(heading(text, "col", hint));
  for (const group of GROUPS) {
    const row = body.insertRow();
    row.dataset.label = group;
    row.append(heading(group, "row"));
    for (const _ of columns) row.insertCell();
  }
  return body;
}

function heading(text, scope, hint) {
  const cell = document.createElement("th");
  cell.textContent = text;
  cell.scope = scope;
  if (hint) cell.title = hint;
  return cell;
}

function shown(key, value) {
  if (value === undefined || value === null) return UNKNOWN;
  return key === "dwell_seconds" ? time(value) : String(value);
}

function time(seconds) {
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return `${minutes}:${String(Math.round(seconds) % 60).padStart(2, "0")} min`;
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
}
