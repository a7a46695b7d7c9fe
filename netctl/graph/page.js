"use strict";
// Lists, the filter and tooltips. Foreign text becomes text nodes and attributes, never markup.

const graph = JSON.parse(document.getElementById("document").textContent);
const STEP = 50; // rows at once: a page of ten thousand Services must open at once, too
const nodes = graph.overlays.flatMap((overlay) => overlay.nodes);
const names = new Map(nodes.map((node) => [node.id, node.name]));
const hues = new Map([...names.keys()].map((id, index) => [id, index % 10])); // as selection.py has them
const timesTo = new Map();
for (const { to, rtt_ms } of graph.overlays.flatMap((overlay) => overlay.paths)) {
  if (rtt_ms === null) continue;
  if (!timesTo.has(to)) timesTo.set(to, []);
  timesTo.get(to).push(rtt_ms);
}

function element(name, attributes = {}, ...children) {
  const made = name === "svg" || name === "rect" || name === "title"
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const percent = (share) => `${+(100 * share).toFixed(1)}%`;

function shareBar(port) {
  const bar = element("svg", { class: "share", viewBox: "0 0 1000 18", preserveAspectRatio: "none", role: "img" });
  let left = 0;
  for (const { address, share, node } of port.endpoints) {
    const hue = hues.has(node) ? `n${hues.get(node)}` : "elsewhere";
    const told = `${address} · ${percent(share)} · ${names.get(node) ?? "no pod of these nodes"}`;
    const width = Math.max(0.5, 1000 * share - 3);
    bar.append(element("rect", { x: left, y: 0, width, height: 18, class: hue }, element("title", {}, told)));
    left += 1000 * share;
  }
  bar.setAttribute("aria-label", port.endpoints.slice(0, 8).map((one) => `${one.address} ${percent(one.share)}`).join(", "));
  return bar;
}

function serviceRow(port) {
  const [first, ...others] = port.addresses;
  const name = element("td", { class: "name" }, port.name);
  if (port.only_at.length) name.append(element("div", { class: "degraded" }, `! only at ${port.only_at.join(", ")}`));
  const reached = element("td", {}, element("code", {}, `${first}/${port.protocol}`));
  for (const other of others) reached.append(element("br"), element("code", { class: "faint" }, other));
  const shares = element("td", { class: "bars" });
  if (port.problem) shares.append(element("span", { class: "lost" }, `✗ ${port.problem}`));
  else shares.append(shareBar(port), element("div", { class: "faint" }, sharesInWords(port)));
  return element("tr", {}, name, reached, element("td", {}, port.balance),
    element("td", { class: "number", "data-label": "endpoints" }, port.endpoints.length), shares);
}

function sharesInWords(port) {
  const perNode = new Map();
  for (const { node, share } of port.endpoints) perNode.set(node, (perNode.get(node) ?? 0) + share);
  const words = [...perNode].slice(0, 6).map(([node, share]) => `${names.get(node) ?? "elsewhere"} ${percent(share)}`);
  return words.join(" · ") + (perNode.size > 6 ? ` · and ${perNode.size - 6} more nodes` : "");
}

const MARKS = { ok: "✓", silent: "?", degraded: "!", lost: "✗" };

function nodeRow(node) {
  const times = timesTo.get(node.id) ?? [];
  const rtt = times.length ? (times.reduce((sum, one) => sum + one, 0) / times.length).toFixed(2) : "-";
  const health = `${MARKS[node.health]} ${node.health}` + (node.reason ? ` (${node.reason})` : "");
  const subnets = node.subnets.join(", ") + (node.reserved ? " (reserved)" : "");
  return element("tr", {}, element("td", { class: "name" }, node.name), element("td", { class: node.health }, health),
    element("td", {}, element("code", {}, node.public_ips.join(", "))), element("td", {}, element("code", {}, subnets)),
    element("td", { class: "number", "data-label": "RTT ms" }, rtt));
}

// One code, one remedy: what differs between nodes is where, what, and since when.
function findingRow({ code, title, action, several }) {
  const where = several.slice(0, 20).map(({ node, object, evidence, since }) => {
    const whose = names.has(object) ? `${object} (${names.get(object)})` : object;
    const age = since === null ? "" : `, for ${duration(graph.taken_at - since)}`;
    return element("li", {}, element("strong", {}, `${node}: ${whose}${age}`), ` · ${evidence}`);
  });
  if (several.length > where.length) where.push(element("li", {}, `and ${several.length - where.length} more`));
  const next = [...new Set(several.map((one) => one.next))].slice(0, 3).flatMap((one) => [" ", element("code", {}, one)]);
  return element("li", {}, element("b", {}, `${code} ${title}`), element("ul", {}, ...where),
    element("p", {}, action), element("p", {}, "next:", ...next));
}

function byCode(findings) {
  const groups = new Map();
  for (const one of findings) {
    if (!groups.has(one.code)) groups.set(one.code, { ...one, several: [] });
    groups.get(one.code).several.push(one);
  }
  return [...groups.values()];
}

function duration(seconds) {
  for (const [unit, size, below, smaller] of [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)}${unit}${String(Math.floor(seconds % size / smaller)).padStart(2, "0")}${below}`;
  }
  return `${Math.max(0, Math.floor(seconds))}s`;
}

const lists = [
  { id: "findings", items: graph.findings, row: findingRow, into: "ul", rowsOf: byCode,
    words: (one) => [one.code, one.title, one.object, one.node, one.evidence] },
  { id: "services", items: graph.services, row: serviceRow, into: "tbody",
    words: (one) => [one.name, one.protocol, one.balance, one.problem ?? "", ...one.addresses,
      ...one.endpoints.flatMap(({ address, node }) => [address, names.get(node) ?? ""])] },
  { id: "nodes", items: nodes, row: nodeRow, into: "tbody",
    words: (one) => [one.name, one.health, one.reason, ...one.public_ips, ...one.subnets] },
];
for (const list of lists) {
  list.section = document.getElementById(list.id);
  list.texts = list.items.map((item) => list.words(item).join(" ").toLowerCase());
  list.section.querySelector(".more").addEventListener("click", () => show(list, list.shown + STEP));
}

function show(list, limit) {
  list.shown = limit;
  const rows = list.rowsOf ? list.rowsOf(list.found) : list.found;
  list.section.querySelector(list.into).replaceChildren(...rows.slice(0, limit).map(list.row));
  const more = list.section.querySelector(".more");
  more.hidden = rows.length <= limit;
  more.textContent = `and ${(rows.length - limit).toLocaleString("en")} more`;
  const count = list.section.querySelector("small");
  if (count) count.textContent = counted(list);
}

function counted({ found, items }) {
  const all = items.length.toLocaleString("en");
  return found.length === items.length ? all : `${found.length.toLocaleString("en")} of ${all}`;
}

// The figures' parts carry the words under which they are found. A figure that knows none of them stays as it is.
const figures = [...document.querySelectorAll("#figures svg")].map((figure) => [...figure.querySelectorAll("[data-find]")]);
const box = document.getElementById("filter");

function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (haystack) => words.every((word) => haystack.includes(word));
  for (const list of lists) {
    list.found = words.length ? list.items.filter((_, index) => matches(list.texts[index])) : list.items;
    show(list, STEP);
  }
  lists[0].section.hidden = lists[0].found.length === 0;
  for (const parts of figures) {
    const hits = new Set(parts.filter((part) => matches(part.dataset.find)));
    const concerned = words.length > 0 && hits.size > 0;
    for (const part of parts) part.classList.toggle("faded", concerned && !hits.has(part));
  }
  const sum = lists.reduce((total, list) => total + list.found.length, 0);
  document.getElementById("found").textContent = words.length ? `${sum.toLocaleString("en")} found` : "";
}

const fromAddress = () => new URLSearchParams(location.hash.slice(1)).get("filter") ?? "";

function ask(text) {
  box.value = text;
  history.replaceState(null, "", text ? `#${new URLSearchParams({ filter: text })}` : "#");
  filter(text);
}

box.addEventListener("input", () => ask(box.value));
document.getElementById("search").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", () => { box.value = fromAddress(); filter(box.value); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { ask(""); tip.hidden = true; }
  if (event.key === "/" && document.activeElement !== box) { event.preventDefault(); box.focus(); }
  const node = event.target.closest?.(".node");
  if (node && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); ask(node.dataset.name); }
});
document.addEventListener("click", (event) => {
  const node = event.target.closest?.(".node");
  if (node) ask(node.dataset.name);
});

// Titles show late, small and not for the keyboard: the tooltip shows the same text at once.
const tip = document.getElementById("tip");

function tell(event) {
  const titled = event.target.closest?.("svg *")?.closest("g:has(> title), rect:has(> title)");
  const title = titled?.querySelector(":scope > title");
  if (title) { titled.dataset.tip = title.textContent; titled.setAttribute("aria-label", title.textContent); title.remove(); }
  const told = event.target.closest?.("[data-tip]");
  tip.hidden = !told;
  if (!told) return;
  tip.textContent = told.dataset.tip;
  const near = told.getBoundingClientRect();
  const [x, y] = event.type === "focusin" ? [near.left, near.bottom] : [event.clientX, event.clientY];
  tip.style.left = `${Math.max(4, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${y + 16 + tip.offsetHeight > innerHeight ? Math.max(4, y - tip.offsetHeight - 10) : y + 16}px`;
}

for (const kind of ["pointermove", "focusin", "focusout"]) document.addEventListener(kind, tell);

box.value = fromAddress();
filter(box.value);
document.documentElement.dataset.ready = "yes";
