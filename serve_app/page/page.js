// What a person does on the page, and what the server answers.

import {Failure, ask, jsonLines, key, post} from "./server.js";
import {$, element, number, showModel, showOne, showWords} from "./show.js";
import * as table from "./table.js";

const PIECE = 256, SIGNS = 250000; // texts, and about their length, of one request
const RETRY_MS = 2000; // while the model is being loaded
const EXAMPLES = [
  "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn a year earlier.",
  "The annual general meeting will be held on 14 April.",
  "The company cut its full-year outlook after weak demand.",
  "Net loss narrowed to $4 million.",
];
let model = {}; // what `info` answers
let stopping = null; // AbortController of the work that is being done
let again = null; // what is done when a key is accepted
let file = null; // that was opened last

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function say(message, busy = false) {
  $("status").textContent = message;
  $("status").classList.toggle("busy", busy);
}

function wait(seconds) {
  say(`The server is busy; it is asked again in ${seconds} s.`, true);
}

// --- keys -----------------------------------------------------------------------------------------

function needKey(error, retry) {
  const refused = key.get() && error.code === "unauthorized"
    ? "The service does not know this key. Check it, or ask the owner of the service for another."
    : error.code === "forbidden" ? error.message : "";
  if (error.code === "unauthorized") key.forget();
  again = retry;
  $("key-error").textContent = refused;
  $("key-error").hidden = !refused;
  $("keyform").hidden = false;
  $("model").textContent = "an API key is needed";
  $("key").focus();
}

$("keyform").addEventListener("submit", async (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  if (!await loadModel()) return;
  $("key").value = "";
  $("keyform").hidden = true;
  $("text").focus();
  const retry = again;
  again = null;
  if (retry) retry();
});

// --- the model ------------------------------------------------------------------------------------

// Show the model; return whether the server told.
async function loadModel() {
  try {
    model = await (await ask("info")).json();
  } catch (error) {
    if (error.code === "unauthorized" || error.code === "forbidden") needKey(error, again);
    else $("model").textContent = error.message;
    if (error.code === "not_ready") setTimeout(loadModel, RETRY_MS);
    return false;
  }
  $("model").textContent = `model ${model.model_version}`;
  showModel(model);
  return true;
}

$("card").addEventListener("toggle", async () => {
  if (!$("card").open) return;
  try {
    $("card-text").textContent = await (await ask("model-card")).text();
  } catch (error) {
    $("card-text").textContent = error.message;
  }
});

// Show the model that answered, where it is another one by now.
async function follow(answers) {
  const version = answers.find((answer) => answer.label)?.model_version;
  if (version && version !== model.model_version) await loadModel();
}

// --- work -----------------------------------------------------------------------------------------

// Do one thing at a time; `work` gets a signal that aborts it.
async function run(work) {
  if (stopping) { // by Ctrl+Enter or a file
    fail("Wait until the work is done, or stop it.");
    return;
  }
  fail("");
  $("one").hidden = $("many").hidden = $("columnform").hidden = true;
  stopping = new AbortController();
  $("go").disabled = true;
  $("stop").hidden = false;
  say("Working …", true);
  try {
    say(await work(stopping.signal));
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else {
      say("");
      failed(error, () => run(work));
    }
  } finally {
    stopping = null;
    $("go").disabled = false;
    $("stop").hidden = $("progress").hidden = true;
  }
}

function failed(error, retry) {
  if (error.code === "unauthorized") needKey(error, retry);
  else fail(error.message);
  if (error.message.includes("which column")) {
    $("columnform").hidden = false;
    $("column").focus();
  }
}

function classify(text) {
  const texts = text.split(/\r?\n/).filter((line) => line.trim());
  if (!texts.length) return fail("There is no text yet: write or paste some.");
  return run((signal) => texts.length === 1 ? classifyOne(texts[0], signal) : classifyMany(texts, signal));
}

async function classifyOne(text, signal) {
  const answer = await post("predict", {text}, signal, wait);
  await follow([answer]);
  showOne(answer, model);
  say("Weighing the words …", true);
  showWords(await post("explain", {text}, signal, wait));
  return "";
}

function next(texts, start) {
  let end = start, signs = 0;
  do signs += texts[end++].length;
  while (end < texts.length && end < start + PIECE && signs + texts[end].length <= SIGNS);
  return texts.slice(start, end);
}

async function classifyMany(texts, signal) {
  table.start(["text"], 0);
  const clock = timer(texts.length);
  let done = 0;
  try {
    while (done < texts.length) {
      const piece = next(texts, done);
      const found = await post("predict", {texts: piece}, signal, wait);
      await follow(found.predictions);
      table.add(piece.map((text) => [text]), found.predictions, model);
      clock(done += piece.length);
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return `${clock(done)}: stopped`;
  }
  return `${clock(done)}: done`;
}

// Return what shows how far the work is.
function timer(total) {
  const started = performance.now();
  $("progress").max = total;
  $("progress").hidden = false;
  return (done) => {
    const rate = done / ((performance.now() - started) / 1000), left = (total - done) / rate;
    const rest = done && left > 1 ? `, ${number(Math.round(left))} s left` : "";
    const told = `${number(done)} of ${number(total)} texts, ${number(Math.round(rate))} a second${rest}`;
    $("progress").value = done;
    say(told, true);
    return told;
  };
}

// --- files ----------------------------------------------------------------------------------------

function formatOf(name) {
  if (/\.(txt|text)$/i.test(name)) return "text";
  return /\.(tsv|tab)$/i.test(name) ? "tsv" : "";
}

function open(opened, column = "") {
  file = opened;
  const query = new URLSearchParams();
  if (formatOf(file.name)) query.set("format", formatOf(file.name));
  if (column) query.set("column", column);
  return run((signal) => classifyFile(opened, query, signal));
}

// The server reads the file; the page knows nothing of delimiters and encodings.
async function classifyFile(opened, query, signal) {
  say(`Reading ${opened.name} …`, true);
  const headers = {"content-type": "application/octet-stream", accept: "application/x-ndjson"};
  const options = {method: "POST", headers, body: opened, signal};
  const response = await ask(`predict/file?${query}`, options, wait);
  let head, clock, done = 0;
  try {
    for await (const lines of jsonLines(response)) {
      if (!head) {
        head = lines.shift();
        table.start(head.header, head.column);
        clock = timer(head.rows);
      }
      const answers = lines.map((line) => line.answer);
      await follow(answers);
      table.add(lines.map((line) => line.cells), answers, model);
      clock(done += lines.length);
    }
  } catch (error) {
    if (error.name === "AbortError") return clock ? `${clock(done)}: stopped` : "Stopped.";
    if (error.code !== "ended") throw error;
  }
  if (!head || done < head.rows) {
    throw new Failure(`The answer ended after ${number(done)} rows: open the file again.`);
  }
  return `${opened.name}: ${clock(done)}: done`;
}

$("columnform").addEventListener("submit", (event) => {
  event.preventDefault();
  if (file) open(file, $("column").value);
});

// --- input ----------------------------------------------------------------------------------------

for (const text of EXAMPLES) {
  const button = element("button", text, "example");
  button.type = "button";
  button.addEventListener("click", () => {
    $("text").value = text;
    classify(text);
  });
  $("examples").append(button);
}
$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  classify($("text").value);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify($("text").value);
});
$("text").addEventListener("paste", (event) => {
  // Browsers insert pasted text line by line, which takes minutes for ten thousand.
  const pasted = event.clipboardData.getData("text"), box = $("text");
  if (pasted.length < 20000) return;
  event.preventDefault();
  box.setRangeText(pasted, box.selectionStart, box.selectionEnd, "end");
});
$("stop").addEventListener("click", () => stopping?.abort());
$("file").addEventListener("change", () => {
  if ($("file").files[0]) open($("file").files[0]);
  $("file").value = "";
});
$("download").addEventListener("click", table.download);
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

$("text").focus();
loadModel();
