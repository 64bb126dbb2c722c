// Reacts to the user: texts, files, keys, and the answers of the server.

import {Failure, ask, jsonLines, key, post} from "./server.js";
import {$, element, number, showModel, showOne, showRollout, showWords} from "./show.js";
import * as table from "./table.js";

const MAX_TEXTS = 256, MAX_CHARACTERS = 250000; // of one request
const RETRY_MS = 2000; // between requests for the model while it is being loaded
const ROLLOUT_MS = 5000; // between requests for a canary while it runs
const EXAMPLES = [
  "Operating profit rose to EUR 13.1 mn from EUR 8.7 mn a year earlier.",
  "The annual general meeting will be held on 14 April.",
  "The company cut its full-year outlook after weak demand.",
  "Net loss narrowed to $4 million.",
];
let model = {}; // the answer of `info`
let stopping = null; // AbortController of the running work
let afterKey = null; // function to call when a key is accepted
let lastFile = null;
let rolloutTimer = 0;

function fail(message) {
  $("error").textContent = message;
  $("error").hidden = !message;
}

function say(message, busy = false) {
  $("status").textContent = message;
  $("status").classList.toggle("busy", busy);
}

function showWait(seconds) {
  say(`The server is busy. Retrying in ${seconds} s.`, true);
}

// --- keys -----------------------------------------------------------------------------------------

function needKey(error, retry) {
  const refused = key.get() && error.code === "unauthorized"
    ? "The service does not know this key. Check the key, or ask the owner of the service for another key."
    : error.code === "forbidden" ? error.message : "";
  if (error.code === "unauthorized") key.forget();
  afterKey = retry;
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
  const retry = afterKey;
  afterKey = null;
  if (retry) retry();
});

// --- the model ------------------------------------------------------------------------------------

// Show the model; return whether the server described it.
async function loadModel() {
  try {
    model = await (await ask("info")).json();
  } catch (error) {
    if (error.code === "unauthorized" || error.code === "forbidden") needKey(error, afterKey);
    else $("model").textContent = error.message;
    if (error.code === "not_ready") setTimeout(loadModel, RETRY_MS);
    return false;
  }
  $("model").textContent = `model ${model.model_version}`;
  showModel(model);
  followRollout(model.rollout);
  return true;
}

// Show the canary, and follow it while it runs.
function followRollout(rollout) {
  showRollout(rollout);
  clearTimeout(rolloutTimer);
  if (rollout?.status !== "running") return;
  rolloutTimer = setTimeout(async () => {
    const latest = await ask("info").then((response) => response.json()).catch(() => model);
    if (latest.model_version === model.model_version) followRollout(latest.rollout);
    else await loadModel();
  }, ROLLOUT_MS);
}

$("card").addEventListener("toggle", async () => {
  if (!$("card").open) return;
  try {
    $("card-text").textContent = await (await ask("model-card")).text();
  } catch (error) {
    $("card-text").textContent = error.message;
  }
});

// Show the model that answered if it is not the one on the page.
async function followModel(answers) {
  const version = answers.find((answer) => answer.label)?.model_version;
  if (version && version !== model.model_version) await loadModel();
}

// --- work -----------------------------------------------------------------------------------------

// Do one piece of work at a time; `work` gets a signal that aborts it.
async function run(work) {
  if (stopping) { // Ctrl+Enter, or a file that was dropped
    fail("Wait until the work is done, or press Stop.");
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
  if (error.code === "unknown_column") {
    $("columnform").hidden = false;
    $("column").focus();
  }
}

function classify(text) {
  const texts = text.split(/\r?\n/).filter((line) => line.trim());
  if (!texts.length) return fail("No text yet. Write or paste a text.");
  return run((signal) => texts.length === 1 ? classifyOne(texts[0], signal) : classifyMany(texts, signal));
}

async function classifyOne(text, signal) {
  const answer = await post("predict", {text}, signal, showWait);
  await followModel([answer]);
  showOne(answer, model);
  say("Weighing the words …", true);
  showWords(await post("explain", {text}, signal, showWait));
  return "";
}

function nextBatch(texts, start) {
  let end = start, characters = 0;
  do characters += texts[end++].length;
  while (end < texts.length && end < start + MAX_TEXTS
    && characters + texts[end].length <= MAX_CHARACTERS);
  return texts.slice(start, end);
}

async function classifyMany(texts, signal) {
  table.start(["text"], 0);
  const showProgress = progress(texts.length);
  let done = 0;
  try {
    while (done < texts.length) {
      const batch = nextBatch(texts, done);
      const {predictions} = await post("predict", {texts: batch}, signal, showWait);
      await followModel(predictions);
      table.add(batch.map((text) => [text]), predictions, model);
      showProgress(done += batch.length);
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    return `${showProgress(done)}: stopped`;
  }
  return `${showProgress(done)}: done`;
}

// Return a function that shows how many of all texts are done, and returns the shown text.
function progress(total) {
  const started = performance.now();
  $("progress").max = total;
  $("progress").hidden = false;
  return (done) => {
    const rate = done / ((performance.now() - started) / 1000), secondsLeft = (total - done) / rate;
    const left = done && secondsLeft > 1 ? `, ${number(Math.round(secondsLeft))} s left` : "";
    const message = `${number(done)} of ${number(total)} texts, ${number(Math.round(rate))} per second${left}`;
    $("progress").value = done;
    say(message, true);
    return message;
  };
}

// --- files ----------------------------------------------------------------------------------------

function formatOf(name) {
  if (/\.(txt|text)$/i.test(name)) return "text";
  return /\.(tsv|tab)$/i.test(name) ? "tsv" : "";
}

function open(file, column = "") {
  lastFile = file;
  const query = new URLSearchParams();
  if (formatOf(file.name)) query.set("format", formatOf(file.name));
  if (column) query.set("column", column);
  return run((signal) => classifyFile(file, query, signal));
}

// The server reads the file: the page does not parse delimiters and encodings.
async function classifyFile(file, query, signal) {
  say(`Reading ${file.name} …`, true);
  const headers = {"content-type": "application/octet-stream", accept: "application/x-ndjson"};
  const options = {method: "POST", headers, body: file, signal};
  const response = await ask(`predict/file?${query}`, options, showWait);
  let head, showProgress, done = 0;
  try {
    for await (const lines of jsonLines(response)) {
      if (!head) {
        head = lines.shift();
        table.start(head.header, head.column);
        showProgress = progress(head.rows);
      }
      const answers = lines.map((line) => line.answer);
      await followModel(answers);
      table.add(lines.map((line) => line.cells), answers, model);
      showProgress(done += lines.length);
    }
  } catch (error) {
    if (error.name === "AbortError") return showProgress ? `${showProgress(done)}: stopped` : "Stopped.";
    if (error.code !== "ended") throw error;
  }
  if (!head || done < head.rows) {
    throw new Failure(`The answer ended after ${number(done)} rows. Open the file again.`);
  }
  return `${file.name}: ${showProgress(done)}: done`;
}

$("columnform").addEventListener("submit", (event) => {
  event.preventDefault();
  if (lastFile) open(lastFile, $("column").value);
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
  // Browsers insert pasted text line by line, which takes minutes for ten thousand lines.
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
