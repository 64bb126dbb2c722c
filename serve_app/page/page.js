"use strict";
// All that comes from a person or the server enters the page as text, never as markup.

const LABELS = ["negative", "neutral", "positive"];
const PIECE = 256, SIGNS = 250000; // texts, and about their length, of one request
const $ = (id) => document.getElementById(id);
let results = []; // of the table: [text, answer or problem]
let stopped = false, running = false;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

async function post(path, body) {
  const headers = {"content-type": "application/json"};
  const key = $("key").value.trim() || sessionStorage.getItem("key");
  if (key) headers.authorization = `Bearer ${key}`;
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      response = await fetch(path, {method: "POST", headers, body: JSON.stringify(body)});
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (response.ok) {
      if (key) sessionStorage.setItem("key", key);
      return response.json();
    }
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401 || response.status === 403) $("keyrow").hidden = false;
    if (response.status === 429 && attempt < 20 && !stopped) {
      const wait = Number(response.headers.get("retry-after")) || 1;
      $("status").textContent = `The server is busy; going on in ${wait} s.`;
      await new Promise((done) => setTimeout(done, wait * 1000));
      continue;
    }
    throw new Error(`${problem.title || `Error ${response.status}`}: ${problem.detail || ""}`);
  }
}

function showOne(answer) {
  const abstains = answer.abstained ? " (too unsure to act on)" : "";
  $("one-label").textContent = `${answer.label}, ${percent(answer.score)}${abstains}`;
  $("bars").replaceChildren(...LABELS.map((label) => {
    const bar = element("div", undefined, "bar"), track = element("div", undefined, "track");
    const fill = element("div", undefined, `fill ${label}`);
    fill.style.width = `${100 * answer.probabilities[label]}%`;
    track.append(fill);
    bar.append(element("span", label), track, element("span", percent(answer.probabilities[label])));
    return bar;
  }));
  $("words").replaceChildren();
  $("one").hidden = false;
}

function showWords(explained) {
  const strongest = Math.max(...explained.words.map((w) => Math.abs(w.attribution)), 1e-9);
  // Counted as the server counts: in code points.
  const signs = Array.from(explained.text);
  const pieces = [];
  let end = 0;
  for (const word of explained.words) {
    pieces.push(document.createTextNode(signs.slice(end, word.start).join("")));
    const mark = element("span", word.text);
    const share = Math.abs(word.attribution) / strongest;
    const color = word.attribution >= 0 ? "27, 95, 180" : "190, 110, 20";
    mark.style.backgroundColor = `rgba(${color}, ${(0.55 * share).toFixed(3)})`;
    if (share > 0.25) {
      mark.style.borderBottom = word.attribution >= 0 ? "2px solid" : "2px dotted";
    }
    mark.title = `${word.attribution >= 0 ? "+" : ""}${(100 * word.attribution).toFixed(1)} points`;
    pieces.push(mark);
    end = word.end;
  }
  $("words").replaceChildren(...pieces);
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function addRows(texts, answers) {
  const rows = document.createDocumentFragment();
  answers.forEach((answer, i) => {
    results.push([texts[i], answer]);
    const row = element("tr");
    row.append(element("td", String(results.length)));
    if (answer.label) {
      row.append(element("td", answer.label, answer.label), element("td", percent(answer.score)));
    } else {
      row.append(element("td", answer.detail || "no answer", "fault"), element("td", ""));
    }
    row.append(element("td", texts[i]));
    rows.append(row);
  });
  $("rows").append(rows);
}

function next(texts, start) {
  let end = start, signs = 0;
  do signs += texts[end++].length;
  while (end < texts.length && end < start + PIECE && signs + texts[end].length <= SIGNS);
  return texts.slice(start, end);
}

async function classifyMany(texts) {
  results = [];
  $("rows").replaceChildren();
  $("many").hidden = false;
  const started = performance.now();
  while (results.length < texts.length && !stopped) {
    const piece = next(texts, results.length);
    const found = await post("predict", {texts: piece});
    addRows(piece, found.predictions);
    const seconds = (performance.now() - started) / 1000, rate = results.length / seconds;
    const left = (texts.length - results.length) / rate;
    $("status").textContent = `${results.length} of ${texts.length} texts, ` +
      `${rate.toFixed(0)} a second${left > 1 ? `, ${left.toFixed(0)} s left` : ""}`;
    const counts = LABELS.map((l) => `${results.filter(([, a]) => a.label === l).length} ${l}`);
    $("many-title").textContent = counts.join(", ");
  }
  $("status").textContent += stopped ? ": stopped" : ": done";
}

async function run(texts) {
  if (running) { // by Ctrl+Enter or a file
    fail("Wait until it is done, or stop it.");
    return;
  }
  texts = texts.filter((text) => text.trim());
  fail("");
  $("status").textContent = "";
  $("one").hidden = $("many").hidden = true;
  if (!texts.length) {
    fail("There is no text yet: write or paste some.");
    return;
  }
  stopped = false;
  running = true;
  $("go").disabled = true;
  $("stop").hidden = texts.length <= PIECE;
  try {
    if (texts.length === 1) {
      showOne(await post("predict", {text: texts[0]}));
      showWords(await post("explain", {text: texts[0]}));
    } else {
      await classifyMany(texts);
    }
  } catch (error) {
    fail(error.message);
  } finally {
    running = false;
    $("go").disabled = false;
    $("stop").hidden = true;
  }
}

// --- files ---

function parseCsv(content) {
  const rows = [[""]];
  let quoted = false;
  for (let i = 0; i < content.length; i++) {
    const sign = content[i], row = rows[rows.length - 1];
    if (quoted) {
      if (sign !== '"') row[row.length - 1] += sign;
      else if (content[i + 1] === '"') { row[row.length - 1] += '"'; i++; }
      else quoted = false;
    } else if (sign === '"' && row[row.length - 1] === "") quoted = true;
    else if (sign === ",") row.push("");
    else if (sign === "\n") rows.push([""]);
    else if (sign !== "\r") row[row.length - 1] += sign;
  }
  return rows.filter((row) => row.length > 1 || row[0]);
}

async function open(file) {
  const content = (await file.text()).replace(/^\ufeff/, "");
  if (!/\.csv$/i.test(file.name)) return run(content.split(/\r?\n/));
  const [header, ...rows] = parseCsv(content);
  const names = (header || []).map((name) => name.trim().toLowerCase());
  let column = names.findIndex((n) => ["text", "sentence", "headline", "title"].includes(n));
  if (column < 0 && names.length === 1) column = 0;
  if (column < 0) return fail(`Name the text's column "text" in ${file.name}; it has: ${header}`);
  return run(rows.map((row) => row[column] || ""));
}

function download() {
  const cell = (value) => {
    const text = String(value ?? "");
    const safe = /^[=+@\t\r-]/.test(text) && !/^[+-]?[\d.,]+%?$/.test(text) ? `'${text}` : text; // no formulas for spreadsheets
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const lines = [["text", "label", "score", ...LABELS, "model_version", "error"]];
  for (const [text, a] of results) {
    const shares = LABELS.map((label) => a.probabilities?.[label]);
    lines.push([text, a.label, a.score, ...shares, a.model_version, a.label ? "" : a.detail]);
  }
  const body = lines.map((line) => line.map(cell).join(",")).join("\r\n");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", body, "\r\n"], {type: "text/csv"}));
  link.download = "sentiment.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run($("text").value.split(/\r?\n/));
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit();
});
$("text").addEventListener("paste", (event) => {
  // Browsers insert pasted text line by line, which takes minutes for ten thousand.
  const pasted = event.clipboardData.getData("text"), box = $("text");
  if (pasted.length < 20000) return;
  event.preventDefault();
  box.setRangeText(pasted, box.selectionStart, box.selectionEnd, "end");
});
$("stop").addEventListener("click", () => { stopped = true; });
$("file").addEventListener("change", () => {
  if ($("file").files[0]) open($("file").files[0]);
  $("file").value = "";
});
$("download").addEventListener("click", download);
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("text").classList.add("over");
});
document.addEventListener("dragleave", () => $("text").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("text").classList.remove("over");
  if (event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});

fetch("health").then((response) => response.json()).then((found) => {
  $("model").textContent = found.model_version ? `model ${found.model_version}` : found.title;
}).catch(() => { $("model").textContent = "the server does not answer"; });
