// Requests to the server of this page, with the user's key.

const MAX_RETRIES = 20; // of a request that the server is too busy for

export class Failure extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem("key") || "",
  set: (value) => sessionStorage.setItem("key", value),
  forget: () => sessionStorage.removeItem("key"),
};

function pause(seconds, signal) {
  return new Promise((resolve) => {
    const end = () => { clearTimeout(timer); resolve(); };
    const timer = setTimeout(end, seconds * 1000);
    signal?.addEventListener("abort", end, {once: true});
  });
}

// Return the response, or throw a Failure with a message for the user.
export async function ask(path, options = {}, onWait = () => {}) {
  const headers = {...options.headers};
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  for (let attempt = 0; ; attempt++) {
    let response;
    try {
      response = await fetch(path, {...options, headers});
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Failure("The server does not answer. Is it still running?", "unreachable");
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    if (response.status === 429 && attempt < MAX_RETRIES) {
      const seconds = Number(response.headers.get("retry-after")) || 1;
      onWait(seconds);
      await pause(seconds, options.signal);
      options.signal?.throwIfAborted();
      continue;
    }
    const title = problem.title || `Error ${response.status}`;
    throw new Failure(`${title}: ${problem.detail || ""}`, problem.code);
  }
}

export async function post(path, body, signal, onWait) {
  const headers = {"content-type": "application/json"};
  const options = {method: "POST", headers, body: JSON.stringify(body), signal};
  return (await ask(path, options, onWait)).json();
}

// Yield the lines of a streamed answer as values, several at a time.
export async function* jsonLines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let lastLine = ""; // may be incomplete
  for (;;) {
    const {value, done} = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Failure("The connection ended.", "ended");
    });
    if (done) return;
    const lines = (lastLine + value).split("\n");
    lastLine = lines.pop();
    if (lines.length) yield lines.map((line) => JSON.parse(line));
  }
}
