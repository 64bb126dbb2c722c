"use strict";
// Renders openapi.json of this server; loads nothing from other hosts.

function element(tag, text) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  return node;
}

function example(path, method, operation) {
  const url = new URL(`.${path}`, location.href).href;
  if (method === "get") return `curl ${url}`;
  const content = Object.keys(operation.requestBody?.content || {});
  if (content.includes("text/csv")) {
    return `curl ${url} -H 'content-type: text/csv' --data-binary @news.csv`;
  }
  const body = JSON.stringify(operation.requestBody.content["application/json"].example);
  return `curl ${url} -H 'content-type: application/json' -d '${body}'`;
}

function name(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.type === "array") return `list of ${name(schema.items)}`;
  const options = schema.oneOf || schema.anyOf;
  return options ? options.map(name).join(" or ") : schema.type || "anything";
}

fetch("openapi.json").then((response) => response.json()).then((api) => {
  const pieces = [element("p", api.info.description)];
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = element("section");
      section.append(element("h2", `${method.toUpperCase()} ${path}`), element("p", operation.summary));
      for (const parameter of operation.parameters || []) {
        const {in: place, name: title, description} = parameter;
        section.append(element("p", `${place} ${title}: ${description}`));
      }
      const [body] = Object.values(operation.requestBody?.content || {});
      if (body) section.append(element("p", `body: ${name(body.schema)}`));
      section.append(element("pre", example(path, method, operation)));
      const list = element("ul");
      for (const [status, answer] of Object.entries(operation.responses)) {
        const [content] = Object.values(answer.content || {});
        list.append(element("li", `${status}: ${answer.description} (${name(content?.schema)})`));
      }
      section.append(list);
      pieces.push(section);
    }
  }
  pieces.push(element("h2", "Types"));
  for (const [title, schema] of Object.entries(api.components.schemas)) {
    const section = element("section");
    section.append(element("h3", title), element("p", schema.description || ""));
    const list = element("ul");
    for (const [key, field] of Object.entries(schema.properties || {})) {
      list.append(element("li", `${key}: ${name(field)}. ${field.description || ""}`));
    }
    section.append(list);
    pieces.push(section);
  }
  document.getElementById("docs").replaceChildren(...pieces);
}).catch(() => { document.getElementById("docs").textContent = "The server does not answer."; });
