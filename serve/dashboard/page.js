// The first page: asks the public API and shows what it says. Text is only ever set as text.

const $ = (id) => document.getElementById(id);
const messages = [];
let chatModel = null;
let running = null;

function element(tag, text, className) {
  const node = document.createElement(tag);
  node.textContent = text ?? "";
  if (className) node.className = className;
  return node;
}

async function call(path, options) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error?.message ?? response.statusText);
  return body;
}

const post = (body, signal) => ({
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal,
});

function flatten(object, prefix = "") {
  return Object.entries(object).flatMap(([name, value]) =>
    value !== null && typeof value === "object" ? flatten(value, `${prefix}${name} `)
      : [[prefix + name.replaceAll("_", " "), String(value)]]);
}

async function showSystem() {
  try {
    const [system, models] = await Promise.all([call("/v1/system"), call("/v1/models")]);
    $("state").textContent = system.ready ? "ready" : "warming up …";
    chatModel = models.data.find((model) => model.kind === "chat")?.id ?? null;
    $("models").replaceChildren(...models.data.map((model) => {
      const item = element("li", model.id);
      item.append(element("cite", model.kind));
      return item;
    }));
    $("numbers").replaceChildren(...flatten(system).flatMap(([name, value]) =>
      [element("dt", name), element("dd", value)]));
  } catch (error) {
    $("state").textContent = `no answer: ${error.message}`;
  }
}

const pages = ({ pages: count }) => `${count} page${count === 1 ? "" : "s"}`;

async function showDocuments() {
  const { data } = await call("/v1/documents");
  $("documents").replaceChildren(...data.map((record) => {
    const item = element("li");
    const remove = element("button", "Delete");
    remove.addEventListener("click", async () => {
      await call(`/v1/documents/${record.id}`, { method: "DELETE" });
      await showDocuments();
    });
    item.append(element("span", `${record.name} · ${pages(record)}`), remove);
    return item;
  }));
}

function showAnswer(answer) {
  const parts = [element("p", answer.answered ? answer.answer : "This is not in the documents.")];
  if (answer.answered) parts.push(element("cite", answer.kind));
  for (const { quote, document: name, page } of answer.citations) {
    const citation = element("blockquote", quote);
    citation.append(document.createElement("br"), element("cite", `${name}, page ${page}`));
    parts.push(citation);
  }
  if (answer.generated && answer.kind !== "generated") {
    parts.push(element("p", answer.generated), element("cite", "generated: the chat model's own words"));
  }
  $("answer").replaceChildren(...parts);
}

async function whileDisabled(form, work, report) {
  const button = form.querySelector("button");
  button.disabled = true;
  try { await work(); } catch (error) { report(error); } finally { button.disabled = false; }
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = $("question").value;
  $("answer").replaceChildren(element("p", "…"));
  whileDisabled(event.target, async () => showAnswer(await call("/v1/ask", post({ question }))),
    (error) => $("answer").replaceChildren(element("p", error.message, "error")));
});

$("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target;
  $("upload-state").textContent = "reading …";
  whileDisabled(form, async () => {
    const record = await call("/v1/documents", { method: "POST", body: new FormData(form) });
    $("upload-state").textContent = `${record.name}: ${pages(record)}, ${record.status}`;
    form.reset();
    await showDocuments();
  }, (error) => { $("upload-state").textContent = error.message; });
});

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const blocks = buffer.split("\n\n");
    buffer = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) yield block.slice(6);
  }
}

async function streamReply(paragraph) {
  const body = { model: chatModel, messages, stream: true, temperature: 0.2, max_tokens: 512 };
  const response = await fetch("/v1/chat/completions", post(body, running.signal));
  if (!response.ok) throw new Error((await response.json()).error.message);
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    paragraph.textContent += chunk.choices[0]?.delta?.content ?? "";
    $("transcript").scrollTop = $("transcript").scrollHeight;
  }
}

$("chat").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = $("message").value;
  const reply = element("p", "");
  messages.push({ role: "user", content });
  $("transcript").append(element("p", content, "user"), reply);
  $("message").value = "";
  $("stop").hidden = false;
  running = new AbortController();
  whileDisabled(event.target, () => streamReply(reply), (error) => {
    if (error.name !== "AbortError") reply.append(element("span", ` ${error.message}`, "error"));
  }).then(() => {
    messages.push({ role: "assistant", content: reply.textContent });
    $("stop").hidden = true;
  });
});

$("stop").addEventListener("click", () => running?.abort());

showSystem();
showDocuments().catch((error) => { $("upload-state").textContent = error.message; });
setInterval(showSystem, 5000);
