// The table of many answers, and its download.

import {$, LABELS, element, notes, number, percent} from "./show.js";

const MAX_ROWS = 10000; // in the table: browsers cannot show the million rows of a large file
const LONG_TEXT = 600; // characters above which the table cuts a text
// Spreadsheets run cells that begin like a formula. As in finsent/scoring/formulas.py.
const FORMULA = /^'*[=+@\t\r-]/, NUMBER = /^([+-]?[0-9.,]+([eE][+-]?[0-9]+)?%?|\+[0-9 ()]+)$/;
const ANSWER_COLUMNS = ["label", "score", ...LABELS, "polarity", "abstained", "truncated", "model_version",
  "calibration", "error"];

let rows, columns, textColumn, counts, truncated;

// Begin a table with these columns; `column` is the index of the text column.
export function start(header, column) {
  [rows, columns, textColumn, truncated] = [[], header, column, 0];
  counts = {negative: 0, neutral: 0, positive: 0, "not sure": 0, failed: 0};
  $("rows").replaceChildren();
  summarize();
  $("many").hidden = false;
}

// Add answers; `cells` has a list of cells per answer.
export function add(cells, answers, model) {
  const fragment = document.createDocumentFragment();
  answers.forEach((answer, i) => {
    rows.push([cells[i], answer]);
    counts[!answer.label ? "failed" : answer.abstained ? "not sure" : answer.label]++;
    truncated += answer.truncated ? 1 : 0;
    if (rows.length <= MAX_ROWS) fragment.append(row(rows.length, cells[i][textColumn], answer, model));
  });
  $("rows").append(fragment);
  summarize();
}

function summarize() {
  const nonempty = Object.entries(counts).filter(([name, n]) => n || LABELS.includes(name));
  $("many-title").textContent = nonempty.map(([name, n]) => `${number(n)} ${name}`).join(", ");
  $("many-notes").textContent = [
    truncated && `The model read only a part of ${number(truncated)} ${truncated === 1 ? "text" : "texts"}.`,
    rows.length > MAX_ROWS && `The table shows the first ${number(MAX_ROWS)} rows; the download has all.`,
  ].filter(Boolean).join(" ");
}

function row(count, text, answer, model) {
  const node = element("tr");
  const [label, kind] = !answer.label ? ["failed", "fault"]
    : answer.abstained ? [`not sure (${answer.label})`, "unsure"] : [answer.label, answer.label];
  const note = element("td", answer.label ? notes(answer, model).join(" ") : answer.detail, "note");
  const textCell = element("td", undefined, "text");
  const body = element("div", text);
  textCell.append(body);
  if (text.length > LONG_TEXT) {
    body.className = "cut";
    const button = element("button", "Show the complete text", "link");
    button.type = "button";
    button.addEventListener("click", () => { body.className = ""; button.remove(); });
    note.append(" ", button);
  }
  node.append(element("td", number(count), "count"), element("td", label, `label ${kind}`),
    element("td", answer.label ? percent(answer.score) : "", "score"), textCell, note);
  return node;
}

function cell(value) {
  const text = String(value ?? "");
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// Rename columns of a file whose names are also columns of the answers, as the server does.
function freeNames(names) {
  const used = new Set(ANSWER_COLUMNS);
  return names.map((name) => {
    while (used.has(name)) name = `input_${name}`;
    used.add(name);
    return name;
  });
}

export function download() {
  const lines = [[...freeNames(columns), ...ANSWER_COLUMNS]];
  for (const [cells, answer] of rows) {
    const shares = LABELS.map((label) => answer.probabilities?.[label].toFixed(6));
    lines.push([...cells, answer.label, answer.score?.toFixed(6), ...shares, answer.polarity?.toFixed(6),
      answer.abstained, answer.truncated, answer.model_version, answer.calibration,
      answer.label ? "" : `${answer.code}: ${answer.detail}`]);
  }
  const body = lines.map((line) => line.map(cell).join(",")).join("\r\n");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", body, "\r\n"], {type: "text/csv"}));
  link.download = "sentiment.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
