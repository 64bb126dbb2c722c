// The table of many answers, and its download.

import {$, LABELS, element, notes, number, percent} from "./show.js";

const SHOWN = 10000; // rows; a file may have a million, which no browser can show
const LONG = 600; // characters of a text that is shown in part
// Spreadsheets run what begins like a formula. As in serve_app/files.py.
const FORMULA = /^[=+@\t\r-]/, NUMBER = /^([+-]?[0-9.,]+([eE][+-]?[0-9]+)?%?|\+[0-9 ()]+)$/;
const ADDED = ["label", "score", ...LABELS, "polarity", "abstained", "truncated", "model_version",
  "calibration", "error"];

let rows, columns, place, counts, truncated;

// Begin a table of rows with these columns; `column` is the place of the text's.
export function start(header, column) {
  [rows, columns, place, truncated] = [[], header, column, 0];
  counts = {negative: 0, neutral: 0, positive: 0, "not sure": 0, failed: 0};
  $("rows").replaceChildren();
  summarize();
  $("many").hidden = false;
}

// Add answers; `cells` has a list of cells for each.
export function add(cells, answers, model) {
  const made = document.createDocumentFragment();
  answers.forEach((answer, i) => {
    rows.push([cells[i], answer]);
    counts[!answer.label ? "failed" : answer.abstained ? "not sure" : answer.label]++;
    truncated += answer.truncated ? 1 : 0;
    if (rows.length <= SHOWN) made.append(row(rows.length, cells[i][place], answer, model));
  });
  $("rows").append(made);
  summarize();
}

function summarize() {
  const shown = Object.entries(counts).filter(([name, n]) => n || LABELS.includes(name));
  $("many-title").textContent = shown.map(([name, n]) => `${number(n)} ${name}`).join(", ");
  $("many-notes").textContent = [
    truncated && `${number(truncated)} ${truncated === 1 ? "text was" : "texts were"} read in part only.`,
    rows.length > SHOWN && `The table shows the first ${number(SHOWN)} rows; the download has all.`,
  ].filter(Boolean).join(" ");
}

function row(count, text, answer, model) {
  const made = element("tr");
  const [label, kind] = !answer.label ? ["failed", "fault"]
    : answer.abstained ? [`not sure (${answer.label})`, "unsure"] : [answer.label, answer.label];
  const note = element("td", answer.label ? notes(answer, model).join(" ") : answer.detail, "note");
  const shown = element("td", undefined, "text");
  const body = element("div", text);
  shown.append(body);
  if (text.length > LONG) {
    body.className = "cut";
    const button = element("button", "Show all of the text", "link");
    button.type = "button";
    button.addEventListener("click", () => { body.className = ""; button.remove(); });
    note.append(" ", button);
  }
  made.append(element("td", number(count), "count"), element("td", label, `label ${kind}`),
    element("td", answer.label ? percent(answer.score) : "", "score"), shown, note);
  return made;
}

function cell(value) {
  const text = String(value ?? "");
  const safe = FORMULA.test(text) && !NUMBER.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

// Names of a file's columns next to those of the answers, as the server's CSV has them.
function freeNames(names) {
  const taken = new Set(ADDED);
  return names.map((name) => {
    while (taken.has(name)) name = `input_${name}`;
    taken.add(name);
    return name;
  });
}

export function download() {
  const lines = [[...freeNames(columns), ...ADDED]];
  for (const [cells, a] of rows) {
    const shares = LABELS.map((label) => a.probabilities?.[label].toFixed(6));
    lines.push([...cells, a.label, a.score?.toFixed(6), ...shares, a.polarity?.toFixed(6), a.abstained,
      a.truncated, a.model_version, a.calibration, a.label ? "" : `${a.code}: ${a.detail}`]);
  }
  const body = lines.map((line) => line.map(cell).join(",")).join("\r\n");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", body, "\r\n"], {type: "text/csv"}));
  link.download = "sentiment.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
