// Builds the answers on the page. Texts of the user and of the server enter the page as text, never
// as markup.

export const LABELS = ["negative", "neutral", "positive"];
export const $ = (id) => document.getElementById(id);

export function element(tag, text, className) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

export function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

export function number(value) {
  return value.toLocaleString("en-US");
}

// Return the notes that a reader of an answer needs besides its label.
export function notes(answer, model) {
  const sentences = [];
  if (answer.abstained) {
    const bound = model.threshold ? `, ${percent(model.threshold)}` : "";
    sentences.push(`Not sure: the score is below the model's threshold${bound}.`);
  }
  if (answer.truncated) {
    const side = model.truncate === "left" ? "last" : "first";
    const part = model.max_length ? `the ${side} ${model.max_length} tokens` : "a part";
    sentences.push(`The model read only ${part} of the text.`);
  }
  return sentences;
}

export function showOne(answer, model) {
  const prefix = answer.abstained ? "Not sure, most likely " : "";
  $("one-label").textContent = `${prefix}${answer.label}, ${percent(answer.score)}`;
  const polarity = `Polarity ${answer.polarity.toFixed(2)}: probability of positive minus negative, from -1 to 1.`;
  $("one-notes").textContent = [...notes(answer, model), polarity].join(" ");
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
  $("one").scrollIntoView({block: "nearest"});
}

export function showWords(explained) {
  const strongest = Math.max(...explained.words.map((w) => Math.abs(w.attribution)), 1e-9);
  // The server counts code points.
  const characters = Array.from(explained.text);
  const pieces = [];
  let end = 0;
  for (const word of explained.words) {
    pieces.push(document.createTextNode(characters.slice(end, word.start).join("")));
    const points = (100 * word.attribution).toFixed(1);
    const mark = element("button", word.text, `word ${word.attribution >= 0 ? "for" : "against"}`);
    mark.type = "button";
    mark.tabIndex = end ? -1 : 0; // one stop for Tab; the arrow keys move from word to word
    mark.dataset.weight = `${word.attribution >= 0 ? "+" : ""}${points} points`;
    mark.style.setProperty("--share", (Math.abs(word.attribution) / strongest).toFixed(3));
    pieces.push(mark);
    end = word.end;
  }
  $("words").replaceChildren(...pieces);
}

// The weight appears below its word: keep it on the screen.
for (const event of ["pointerover", "focusin"]) {
  $("words").addEventListener(event, ({target}) => {
    const words = $("words").getBoundingClientRect(), word = target.getBoundingClientRect();
    target.classList.toggle("right", word.left - words.left > words.width / 2);
  });
}

// Move the focus from word to word.
$("words").addEventListener("keydown", (event) => {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  const words = [...$("words").querySelectorAll(".word")];
  const next = words[words.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});

function pairs(figures) {
  return Object.entries(figures).filter(([, value]) => value).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  });
}

const STATES = {
  "running": "The canary runs.", "promoting": "The version gets the alias now.",
  "promoted": "The version passed all stages and has the alias.",
  "rolled back": "The version was rolled back. The version before answers all requests.",
  "stopped": "The rollout ended without a result.",
};

// Show the latest canary, if there was one.
export function showRollout(rollout) {
  $("rollout").hidden = !rollout;
  if (!rollout) return;
  const of = (count, total) => `${number(count)} of ${number(total)}`;
  const evidence = (value) => `${value < 100 ? value.toFixed(1) : number(Math.round(value))}, limit ${rollout.limit.toFixed(0)}`;
  $("rollout-title").textContent = `Canary of ${rollout.candidate}`;
  $("rollout-state").textContent = STATES[rollout.status] || rollout.status;
  $("stages").replaceChildren(...rollout.shares.map((share) => {
    const isCurrent = rollout.status === "running" && share === rollout.share;
    const stage = element("li", `${+(100 * share).toFixed(2)} %`, isCurrent ? "current" : "");
    if (isCurrent) stage.setAttribute("aria-current", "step");
    return stage;
  }));
  $("rollout-figures").replaceChildren(...pairs({
    "Errors of the canary": of(rollout.errors, rollout.requests),
    "Errors of the current version": of(rollout.control_errors, rollout.control_requests),
    "Other labels": of(rollout.disagreements, rollout.compared),
    "Evidence for worse": evidence(rollout.worse_evidence),
    "Evidence for safe": evidence(rollout.safe_evidence),
    "Version before": rollout.champion,
  }));
  $("decisions").replaceChildren(...rollout.decisions.toReversed().map(({at, action, reason}) =>
    element("li", `${at.slice(0, 19).replace("T", " ")} UTC, ${action}: ${reason}`)));
}

export function showModel(model) {
  const metrics = model.metrics || {}, data = model.dataset || {};
  const rows = metrics.rows ? ` on ${number(metrics.rows)} test rows` : "";
  const figures = {
    "Version": model.model_version,
    "Macro-F1": metrics.macro_f1 == null ? null : `${metrics.macro_f1.toFixed(3)}${rows}`,
    "Accuracy": metrics.accuracy == null ? null : percent(metrics.accuracy),
    "Calibration error": metrics.ece == null ? null : percent(metrics.ece),
    "Data": data.version && [data.name, data.version].filter(Boolean).join(", version "),
    "Data rows": data.rows && number(data.rows),
    "Calibrated sources": Object.keys(model.calibrations || {}).join(", "),
    "Published": model.created?.slice(0, 10),
    "Backbone": model.backbone,
  };
  $("figures").replaceChildren(...pairs(figures));
  const {characters, file_bytes: bytes} = model.limits || {};
  const side = model.truncate === "left" ? "last" : "first";
  const limits = [
    "The model reads English financial text and gives one label per text. Mixed news gets the label of " +
      "its main direction. The figures apply to texts like the test rows. Answers are not " +
      "investment advice.",
    model.truncate === "error"
      ? `A text of more than ${number(model.max_length)} tokens is refused.`
      : `The model reads only the ${side} ${number(model.max_length)} tokens of a text.`,
    model.threshold && `Answers with a score below ${percent(model.threshold)} are shown as not sure.`,
    characters && `A text has at most ${number(characters)} characters.`,
    bytes && `A file has at most ${number(Math.floor(bytes / 1e6))} MB.`,
  ];
  $("limits").replaceChildren(...limits.filter(Boolean).map((limit) => element("li", limit)));
  $("card").open = false; // it may show another version
  $("about").hidden = false;
}
