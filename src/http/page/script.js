// The dashboard. It reads the node's API and nothing else. What comes from there reaches the page as text only (`textContent`, attributes
// set by name), never as markup: names that strangers chose can do nothing here.
"use strict";

// ---- Small tools ----

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children; strings become text. */
function el(name, props = {}, ...kids) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "class") node.className = value;
    else if (value !== undefined && value !== null) node.setAttribute(key, value);
  }
  node.append(...kids.filter((kid) => kid !== null && kid !== undefined && kid !== "" && kid !== false));
  return node;
}

/** The same of SVG. */
function draw(name, attrs = {}, ...kids) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attrs)) node.setAttribute(key, value);
  node.append(...kids);
  return node;
}

/** Sets a text, if it is another. */
function put(where, text) {
  const node = typeof where === "string" ? $(where) : where;
  if (node.textContent !== text) node.textContent = text;
  return node;
}

const show = (id, shown) => {
  $(id).toggleAttribute("hidden", !shown);
};

/** What the browser remembers, where it lets us. */
function remember(store, key, value) {
  try {
    if (value === undefined) return window[store].getItem(key);
    if (value === null) window[store].removeItem(key);
    else window[store].setItem(key, value);
  } catch {
    /* Private windows may refuse. */
  }
  return null;
}

// ---- Numbers as people read them ----

const whole = new Intl.NumberFormat("en");
const words = new Intl.NumberFormat("en", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 3 });
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const count = (value, one, many = one + "s") => `${whole.format(value)} ${value === 1 ? one : many}`;

/** Three digits and a unit, each step a thousand times the one before. */
function scaled(value, units) {
  if (!isNumber(value)) return ["–", ""];
  if (value <= 0) return ["0", units[0]];
  let step = 0;
  while (value >= 999.5 && step < units.length - 1) {
    value /= 1000;
    step += 1;
  }
  if (value >= 1e6) return [value.toExponential(2), units[step]];
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return [value < 0.01 ? value.toPrecision(2) : value.toFixed(digits), units[step]];
}

const RATES = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s", "YH/s", "RH/s", "QH/s"];
const HASHES = RATES.map((unit) => unit.slice(0, -2));
const rate = (value) => scaled(value, RATES).join(" ").trim();
const difficulty = (value) => scaled(value, ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]).join(" ").trim();
const effortText = (value) => (isNumber(value) ? `${value < 1e4 ? whole.format(Math.round(value)) : words.format(value)} %` : "–");
const bytes = (value) => scaled(value, ["B", "kB", "MB", "GB", "TB", "PB"]).join(" ");

function span(seconds) {
  if (!isNumber(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  const two = (a, unit, b, less) => (b ? `${a} ${unit} ${b} ${less}` : `${a} ${unit}`);
  if (s < 1) return seconds > 0 ? "under 1 s" : "0 s";
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return two(Math.floor(s / 3600), "h", Math.floor(s / 60) % 60, "min");
  if (s < 60 * 86400) return two(Math.floor(s / 86400), "d", Math.floor(s / 3600) % 24, "h");
  const years = s / 31557600;
  if (years < 2) return `${(s / 2629800).toFixed(1)} months`;
  return years < 1000 ? `${years.toPrecision(3)} years` : `${words.format(years)} years`;
}

/** Seconds that the node's clock is ahead of this one's. */
let skew = 0;
const now = () => Date.now() / 1000 + skew;
const ago = (unix) => (unix ? (now() - unix < 2 ? "just now" : `${span(now() - unix)} ago`) : "never");
const moment = (unix) => new Date(unix * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** A probability, with enough digits for the smallest miner. */
function chance(p) {
  if (!isNumber(p)) return "–";
  if (p <= 0) return "0 %";
  if (p > 0.999) return "> 99.9 %";
  if (p < 1e-7) return `1 in ${words.format(1 / p)}`;
  const percent = p * 100;
  const digits = percent >= 10 ? 1 : Math.max(2, 1 - Math.floor(Math.log10(percent)));
  return `${percent.toFixed(digits)} %`;
}

const part = (x) => (x > 0 && x < 0.0005 ? "< 0.1 %" : `${(x * 100).toFixed(1)} %`);
const money = (sats) => (!isNumber(sats) ? ["–", ""] : sats >= 100000 ? [(sats / 1e8).toFixed(8), "BTC"] : [whole.format(sats), "sats"]);
const coins = (sats) => money(sats).join(" ").trim();
const short = (text, head = 10, tail = 6) =>
  text && text.length > head + tail + 1 ? `${text.slice(0, head)}…${text.slice(-tail)}` : text || "–";
const figure = (id, [value, unit]) => {
  const key = `${value} ${unit}`;
  if ($(id).dataset.key === key) return;
  $(id).dataset.key = key;
  $(id).replaceChildren(value, ...(unit ? [" ", el("span", { class: "unit" }, unit)] : []));
};

/** Copies a text. Browsers give the clipboard to pages of HTTPS only, and a node at home has none: then the old way. */
async function copy(text, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = el("textarea", { class: "unseen", readonly: "" });
    area.value = text;
    document.body.append(area);
    area.select();
    try {
      done = document.execCommand("copy");
    } catch {
      /* Then by hand. */
    }
    area.remove();
    button.focus();
  }
  const said = button.dataset.said || button.textContent;
  button.dataset.said = said;
  put(button, done ? "Copied" : "Select it by hand");
  setTimeout(() => put(button, said), 2000);
}

const copier = (text, what) =>
  el("button", { type: "button", "aria-label": `Copy ${what}`, onclick: (event) => copy(text, event.currentTarget) }, "Copy");

// ---- What is known ----

const data = {
  status: null,
  pool: null,
  history: null,
  chain: null,
  miners: null,
  workers: new Map(),
  payouts: null,
  you: null,
  blocks: null,
  peers: null,
  bans: null,
  sessions: null,
};
const SPANS = { "1h": 3600, "1d": 86400, "7d": 604800, "30d": 2592000 };
let period = remember("localStorage", "span");
if (!SPANS[period]) period = "1d";
let token = remember("sessionStorage", "token");
let mine = "";
let from = null; // The highest share that is drawn; null: the newest.

/** Asks the node. Throws what went wrong: with the answer's `status`, or `away` if there was none. */
async function ask(path, options = {}) {
  const headers = { Accept: "application/json" };
  if (token && options.signed) headers.Authorization = `Bearer ${token}`;
  if (options.body) headers["Content-Type"] = "application/json";
  const stop = new AbortController();
  const timer = setTimeout(() => stop.abort(), 20000);
  let answer, said;
  try {
    answer = await fetch(path, {
      method: options.method || "GET",
      headers,
      body: options.body && JSON.stringify(options.body),
      signal: stop.signal,
    });
    said = await answer.json();
  } catch {
    throw Object.assign(new Error("the node does not answer"), { away: true });
  } finally {
    clearTimeout(timer);
  }
  if (answer.ok) return said;
  const why = said && said.error && said.error.message;
  throw Object.assign(new Error(why || `the node answered ${answer.status}`), { status: answer.status });
}

// ---- What is asked for, how often, and where it is shown ----

// `every`: seconds. What no visible section needs is not asked for.
const sources = {
  status: {
    every: () => 5,
    wanted: () => !live,
    run: async () => {
      const lonely = down !== null;
      took(await ask("/api/v1/status"));
      if (lonely && !live && !document.hidden) listen();
    },
  },
  pool: {
    where: ["rate", "tiles", "blocks"],
    every: () => 10,
    run: async () => {
      data.pool = await ask("/api/v1/pool");
      clock();
      renderPool();
    },
  },
  history: {
    where: ["rate"],
    every: () => ({ "1h": 10, "1d": 60, "7d": 300, "30d": 900 })[period],
    run: async () => {
      data.history = await ask(`/api/v1/history?span=${period}`);
      // A node that is young has a dot to show on a day, and a line on an hour.
      const [first] = data.history.points;
      if (!remember("localStorage", "span") && period === "1d" && !(first && first[0] < now() - 7200)) {
        period = "1h";
        soon(["history"]);
      }
      renderChart();
    },
  },
  chain: {
    where: ["chain"],
    every: () => (live ? 30 : 10),
    wanted: chained,
    run: async () => {
      data.chain = await ask(`/api/v1/chain?count=${slots()}${from === null ? "" : `&from=${from}`}`);
      renderChain();
    },
  },
  miners: { where: ["miners", "payouts"], every: () => 10, run: readMiners },
  payouts: { where: ["payouts", "mine", "tiles"], every: () => 20, run: readPayouts },
  blocks: {
    where: ["blocks"],
    every: () => 60,
    run: async () => {
      data.blocks = await ask(`/api/v1/blocks?count=${blocksShown}`);
      renderBlocks();
    },
  },
  peers: {
    where: ["peers"],
    every: () => 10,
    wanted: chained,
    run: async () => {
      data.peers = await ask("/api/v1/peers");
      renderPeers();
    },
  },
  sessions: {
    where: ["operator"],
    every: () => 10,
    wanted: operates,
    denied: (error) => closed("operator", error),
    run: async () => {
      data.sessions = await ask("/api/v1/sessions", { signed: true });
      renderSessions();
    },
  },
  bans: {
    where: ["operator"],
    every: () => 30,
    wanted: operates,
    denied: (error) => closed("operator", error),
    run: async () => {
      data.bans = await ask("/api/v1/bans", { signed: true });
      renderBans();
    },
  },
};
const seen = new Set();
let timer = 0;

function chained() {
  return !data.status || data.status.mode === "chain";
}

/** Asks for it as soon as it has not been asked for during `gap` seconds. */
function soon(names, gap = 0) {
  for (const name of names) {
    const source = sources[name];
    source.next = Math.min(source.next ?? 0, Math.max(Date.now(), (source.last ?? 0) + gap * 1000));
  }
  plan();
}

/** Sets the clock for what is due next. */
function plan() {
  clearTimeout(timer);
  let next = Infinity;
  for (const source of Object.values(sources)) {
    // Out of sight only the state is kept, for the tab's title tells it.
    if (!wants(source) || (document.hidden && source !== sources.status)) continue;
    if ((source.next ?? 0) <= Date.now()) start(source);
    else next = Math.min(next, source.next);
  }
  if (next < Infinity) timer = setTimeout(plan, Math.max(50, next - Date.now()));
}

const wants = (source) => !source.busy && (!source.where || source.where.some((id) => seen.has(id))) && (!source.wanted || source.wanted());

async function start(source) {
  const given = token;
  source.busy = true;
  source.last = Date.now();
  source.next = source.last + source.every() * 1000;
  try {
    await source.run();
  } catch (error) {
    if (error.away && source === sources.status) lost();
    if (source.denied && given === token && (error.status === 401 || error.status === 403)) source.denied(error);
    // What the node says is told where it belongs, or is nothing to tell; all else is a fault of this page.
    if (!error.away && !error.status) console.error(error);
  }
  source.busy = false;
  plan();
}

// ---- Live ----

let live = false;
let stream = null;
let retry = 1;
let retryTimer = 0;
let beat = 0;
let down = null; // Since when the node does not answer.

function listen() {
  clearTimeout(retryTimer);
  if (stream) stream.close();
  const mine = (stream = new EventSource("/api/v1/events"));
  const on = (name, act) =>
    mine.addEventListener(name, (event) => {
      if (mine !== stream) return;
      beat = Date.now();
      let value = null;
      try {
        value = JSON.parse(event.data);
      } catch {
        return;
      }
      act(value);
    });
  mine.onopen = () => {
    if (mine !== stream) return;
    live = true;
    retry = 1;
    beat = Date.now();
    back();
    soon(Object.keys(sources), 0.5);
  };
  mine.onerror = () => {
    if (mine !== stream) return;
    mine.close();
    live = false;
    again();
  };
  on("status", took);
  on("share", () => soon(["chain"], 1));
  on("tip", (tip) => {
    put("height", whole.format(tip.height));
    soon(["chain"], 1);
    soon(["payouts"], 5);
  });
  on("block", (block) => {
    celebrate(block);
    soon(["blocks", "pool"], 1);
  });
  on("fate", () => soon(["blocks"], 1));
  on("miner", () => soon(["miners"], 2));
  on("peer", () => soon(["peers"], 2));
  on("bitcoin", () => soon(["blocks", "pool"], 3));
  on("lost", () => soon(Object.keys(sources), 1));
}

function again() {
  clearTimeout(retryTimer);
  if (!document.hidden) retryTimer = setTimeout(listen, retry * 1000 * (0.8 + Math.random() * 0.4));
  retry = Math.min(retry * 2, 15);
  // Whether the node is away, or only has no stream for us, this tells.
  soon(["status"]);
}

/** The node does not answer. */
function lost() {
  down ??= now();
  renderState();
}

/** It does. */
function back() {
  if (down === null) return;
  down = null;
  renderState();
}

// A stream that says nothing for long is dead though nobody said so: the node sends its status every 15 seconds at least.
setInterval(() => {
  if (live && Date.now() - beat > 45000) stream.onerror();
}, 5000);

/** A status has come, by the stream or because it was asked for. */
function took(status) {
  const version = data.status && data.status.version;
  if (version && version !== status.version && remember("sessionStorage", "reloaded") !== status.version) {
    remember("sessionStorage", "reloaded", status.version);
    location.reload();
    return;
  }
  data.status = status;
  back();
  renderStatus();
}

function clock() {
  const ahead = data.pool.time - Date.now() / 1000;
  skew = Math.abs(ahead) > 3 ? ahead : 0;
}

// ---- State and health ----

/** What the page's state is: a class and words. */
function state() {
  const status = data.status;
  if (down !== null) return ["waiting", "Reconnecting…"];
  if (!status) return ["waiting", "Connecting…"];
  const [work] = working();
  if (status.trouble && !(work && status.trouble.startsWith("syncing"))) return ["trouble", sentence(status.trouble)];
  if (work) return ["waiting", `${doing(work)}: ${percent(work)}${left(work)}`];
  if (!status.miners) return ["good", "Ready for miners"];
  return ["good", `All is well: ${count(status.miners, "miner")}${chained() ? `, ${count(status.peers, "peer")}` : ""}`];
}

function renderState() {
  const [kind, text] = state();
  $("state").className = `state ${kind}`;
  put("state-text", text);
  const [value, unit] = scaled(ownRate(), RATES);
  const title = kind === "good" ? `${value} ${unit} · Rockpool` : `${kind === "trouble" ? "⚠" : "…"} ${text} · Rockpool`;
  if (document.title !== title) document.title = title;
  const colour = { good: "#00a08f", waiting: "#d9952b", trouble: "#d93a30" }[kind];
  const rings = [4, 9, 14].map(
    (r, i) => `<circle cx='16' cy='16' r='${r}' fill='${i ? "none" : colour}' stroke='${colour}' stroke-width='3'/>`,
  );
  const icon = `data:image/svg+xml,${encodeURIComponent(`<svg xmlns='${SVG}' viewBox='0 0 32 32'>${rings.join("")}</svg>`)}`;
  if ($("icon").href !== icon) $("icon").href = icon;
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const WORK = {
  headers: "Fetching Bitcoin’s headers",
  sync: "Fetching the share chain",
  rebuild: "Checking coinbases",
  prune: "Deleting what is old",
};
const doing = (work) => WORK[work.what] || sentence(work.what);

/** Long work under way. */
const working = () => data.status.progress || [];

const percent = (work) => (work.of > 0 ? `${Math.floor((100 * Math.min(work.done, work.of)) / work.of)} %` : "");
const left = (work) => (isNumber(work.seconds_left) ? `, about ${span(work.seconds_left)} left` : "");

function renderStatus() {
  const status = data.status;
  document.documentElement.dataset.mode = status.mode;
  put("network", status.network).hidden = false;
  put("version", status.version);
  put("height", whole.format(status.tip.height));
  put("uptime", `running for ${span(status.uptime_s)}`);
  for (const id of ["chain", "peers", "payouts"]) show(id, chained() || (id === "payouts" && status.mode === "standalone"));
  renderState();
  renderRates();
  renderHealth();
  renderConnect();
  list(
    "bitcoin-list",
    [["Node"], ["Height", "right"], ["Connected", "right"]],
    (status.bitcoin.peers || []).map((node) => [
      node.addr,
      { text: node.addr, small: node.agent },
      whole.format(node.height),
      span(node.up_s),
    ]),
  );
  show("bitcoin-peers", (status.bitcoin.peers || []).length > 0);
}

const ownRate = () => (data.status && data.status.rates ? data.status.rates.own : data.pool ? data.pool.own_rate : null);

const SOLO = "solo: whoever finds a block is paid all of it";

function renderRates() {
  const { status, pool } = data;
  const own = ownRate();
  const all = status && status.rates ? status.rates.pool : pool ? pool.pool_rate : null;
  for (const [id, value] of [
    ["own", own],
    ["pool", all],
  ]) {
    const [number, unit] = scaled(value, RATES);
    put(`${id}-rate`, number);
    put(`${id}-unit`, unit);
  }
  // Both over an hour: five minutes' luck is no part of a pool.
  const share = pool && pool.pool_rate > 0 ? ` · ${part(Math.min(1, pool.own_rate / pool.pool_rate))} of the pool` : "";
  const alone = status && status.mode === "solo" ? SOLO : "standalone: this node’s own pool";
  put("own-note", (status ? `${count(status.miners, "miner")} online` : "") + (chained() ? share : ` · ${alone}`));
  const members = pool
    ? `${count(pool.miners_in_window, "address", "addresses")} in the window · a share every ${span(pool.share_interval_s)}`
    : "\u00a0";
  put("pool-note", members);
  show("whole-pool", chained());
  show("no-miner", Boolean(status && !status.miners && !(own > 0)));
}

function renderHealth() {
  const { status } = data;
  const trouble = status.trouble || "";
  const has = (word) => trouble.includes(word);
  const checks = [];
  const { height, headers } = status.bitcoin;
  const bitcoin = !has("bitcoind") && isNumber(height);
  checks.push([
    bitcoin ? "good" : "trouble",
    bitcoin ? `bitcoind gives work for block ${whole.format(height + 1)}` : "No work from bitcoind",
    bitcoin ? (isNumber(headers) ? `best header known: ${whole.format(headers)}` : "") : trouble || "no block template has come yet",
  ]);
  if (chained()) {
    const lonely = has("no peer");
    checks.push([
      lonely ? "trouble" : status.peers ? "good" : "waiting",
      status.peers ? `${count(status.peers, "peer")} connected` : "No peer connected",
      lonely ? trouble : status.peers || status.network === "regtest" ? "" : "without --alone miners wait for one",
    ]);
    const [work] = working();
    checks.push([
      work ? "waiting" : "good",
      work ? `${doing(work)}: ${percent(work)}` : "Share chain is in step",
      `height ${whole.format(status.tip.height)}${status.claimed_height ? `, a peer claims ${whole.format(status.claimed_height)}` : ""}`,
    ]);
  }
  checks.push([
    has("disk") ? "trouble" : "good",
    has("disk") ? "The disk is full" : "The disk takes what is written",
    has("disk") ? "make room; shares are held back until then" : "",
  ]);
  const { accepted, rejected } = status.shares;
  const all = accepted + rejected;
  checks.push([
    all && rejected / all > 0.05 ? "waiting" : "good",
    `${whole.format(accepted)} submits taken, ${whole.format(rejected)} refused`,
    all ? `${part(rejected / all)} refused since the start; below 1 % is usual` : "none since the start",
  ]);
  keyed(
    $("checks"),
    checks,
    (check, i) => i,
    ([kind, text, small]) => [
      el("span", { class: `dot ${kind}`, role: "img", "aria-label": { good: "good", waiting: "attention", trouble: "trouble" }[kind] }),
      el("span", {}, text, small && el("small", {}, small)),
    ],
    "li",
  );
  keyed(
    $("progress"),
    working(),
    (work) => work.what,
    (work) => [
      el("p", { class: "mute" }, `${doing(work)}: ${whole.format(work.done)} of ${whole.format(work.of)} ${work.unit || ""}${left(work)}`),
      el("progress", {
        class: "bar",
        max: Math.max(1, work.of),
        value: Math.min(work.done, work.of),
        "aria-label": doing(work),
      }),
    ],
    "div",
  );
}

/** Children of a node by key, each made anew only when what it shows is another. */
function keyed(parent, items, keyOf, make, tag) {
  const old = new Map();
  for (const child of [...parent.children]) {
    if (old.has(child.dataset.key)) child.remove();
    else old.set(child.dataset.key, child);
  }
  let at = null;
  items.forEach((item, i) => {
    const key = String(keyOf(item, i));
    let node = old.get(key);
    old.delete(key);
    if (!node) {
      node = el(tag);
      node.dataset.key = key;
    }
    const sign = JSON.stringify(item);
    if (node.sign !== sign) {
      node.sign = sign;
      // Who stands on a button of it goes on standing there.
      const held = [...node.querySelectorAll("button")].indexOf(document.activeElement);
      node.replaceChildren(...make(item, node));
      if (held >= 0) node.querySelectorAll("button")[held]?.focus({ preventScroll: true });
    }
    const wanted = at ? at.nextSibling : parent.firstChild;
    if (node !== wanted) parent.insertBefore(node, wanted);
    at = node;
  });
  old.forEach((node) => node.remove());
}

const DOTS = { off: "offline", trouble: "trouble" };

/**
 * A table. Columns are [name, class, title]; a row is its key and then a cell for each: a string, or
 * {text, small, title, dot, tag, num, bad, button, label, act}.
 */
function list(id, columns, rows) {
  const box = $(id);
  let table = box.firstChild;
  if (!table) {
    const heads = columns.map(([name, kind, title]) => el("th", { scope: "col", class: kind || "", title }, name));
    table = el("table", { class: "table" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody"));
    box.append(table);
  }
  keyed(
    table.lastChild,
    rows,
    (row) => row[0],
    (row, node) => {
      node.className = row.off ? "off" : "";
      return row.slice(1).map((cell, i) => {
        const it = typeof cell === "object" && cell !== null ? cell : { text: cell };
        const text = el(
          "span",
          { class: `name ${it.num ? "num" : ""}`, title: it.title },
          it.dot && el("span", { class: `dot ${it.dot}`, role: "img", "aria-label": DOTS[it.dot] || "online" }),
          it.text ?? "–",
          it.tag && el("span", { class: "tag" }, it.tag),
        );
        return el(
          "td",
          { class: columns[i][1] || "", "data-label": columns[i][0] },
          it.button ? el("button", { type: "button", "aria-label": it.label, onclick: it.act }, it.button) : text,
          it.small && el("small", { class: it.bad ? "bad" : "" }, it.small),
        );
      });
    },
    "tr",
  );
}

// ---- Connect ----

const loopback = (host) => /^(localhost|127\.|\[?::1\]?$)/.test(host);

function renderConnect() {
  const { listen } = data.status;
  const here = location.hostname;
  // Who listens everywhere is reached by the name that the page was reached by.
  const reach = (addr) => addr.replace(/^(0\.0\.0\.0|\[::\]):/, `${here}:`);
  const rows = [];
  let url = "";
  if (listen.stratum) {
    url = `stratum+tcp://${reach(listen.stratum)}`;
    rows.push(["Server", url], ["User name", `${mine || "YOUR-ADDRESS"}.garage`], ["Password", "x"]);
  }
  if (listen.p2p) rows.push(["For other nodes", `--peer ${reach(listen.p2p)}`]);
  keyed(
    $("strings"),
    rows,
    ([name]) => name,
    ([name, text]) => [el("dt", {}, name), el("dd", {}, el("code", {}, text), copier(text, name))],
    "div",
  );
  put("no-miner-url", url);
  put("miners-url", url);
  // Who has no miner yet needs this first; it stays where it is until the page is loaded again.
  if (!renderConnect.placed) {
    renderConnect.placed = true;
    if (!data.status.miners && !(ownRate() > 0)) $("main").insertBefore($("connect"), $("chain"));
  }
  show("connect-local", Boolean(listen.stratum && loopback(listen.stratum)));
  show("connect-here", Boolean(listen.stratum && !loopback(listen.stratum) && loopback(here)));
}

// ---- The pool's figures ----

function renderPool() {
  const pool = data.pool;
  const expect = pool.expect || {};
  const luck = pool.luck || { blocks: [] };
  const best = pool.best || {};
  renderRates();
  renderNext();
  put("block-time", span(expect.pool_block_s));
  // Where every share is a block, as on regtest, what a block takes says nothing.
  const toy = isNumber(pool.network_difficulty) && !isNumber(pool.network_rate);
  show("tile-time", !toy);
  show("tile-chance", !toy);
  show("tile-effort", !toy && chained());
  show("tile-share", chained());
  show("tile-next", !data.status || data.status.mode !== "solo");
  put(
    "block-note",
    !chained()
      ? "of your miners, on average"
      : `of the pool, on average${isNumber(expect.own_block_solo_s) ? `; your miners alone need ${span(expect.own_block_solo_s)}` : ""}`,
  );
  const effort = luck.effort_percent;
  put("effort", effortText(effort));
  $("effort-bar").value = Math.min(100, effort || 0);
  $("effort-bar").classList.toggle("over", effort > 100);
  put(
    "effort-note",
    luck.blocks && luck.blocks.length && luck.since
      ? `work since the block of ${ago(luck.since)}, of what one takes on average`
      : "work so far, of what a block takes on average",
  );
  for (const time of ["day", "week", "year"]) {
    const p = expect[`chance_${time}`];
    put(`chance-${time}`, chance(p)).title = p > 0 ? `1 in ${words.format(1 / p)}` : "";
  }
  put("share-time", span(expect.own_share_s));
  put(
    "share-note",
    expect.own_share_s > pool.window_s
      ? `on average: longer than the window of ${span(pool.window_s)}, so with luck only`
      : `on average; blocks pay for the shares of the last ${span(pool.window_s)}`,
  );
  figure("best", scaled(best.ever > 0 ? best.ever : null, ["", "k", "M", "G", "T", "P", "E", "Z"]));
  const who =
    best.ever > 0
      ? `${best.worker || short(best.address)}, ${ago(best.time)} · since the start ${difficulty(best.session)}`
      : "the luckiest hash of your miners";
  put("best-note", `${who} · a block needs ${difficulty(pool.network_difficulty)}`);
  renderBlocks();
}

function renderNext() {
  const sats = data.pool && data.pool.expect ? data.pool.expect.own_sats_next_block : null;
  const value = data.payouts && data.payouts.value;
  figure("next-sats", sats >= 100000 ? [(sats / 1e8).toPrecision(4), "BTC"] : money(sats));
  put(
    "next-note",
    value && isNumber(sats)
      ? `${whole.format(sats)} sats, ${part(sats / value)} of the block, to addresses that mine here`
      : "what a block found now would pay to addresses that mine here",
  );
}

// ---- The chart ----

const chart = { at: null, points: [], x: null };

/** A round number at or above. */
function ceiling(value) {
  if (!(value > 0)) return 1;
  const ten = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * ten).find((n) => n >= value * 0.999);
}

function renderChart() {
  const box = $("chart");
  const history = data.history;
  const width = box.clientWidth,
    height = box.clientHeight;
  if (!history || !width) return;
  for (const button of $("spans").children) button.setAttribute("aria-pressed", String(button.dataset.span === period));
  const points = history.points || [];
  chart.points = points;
  if (chart.at !== null && chart.at >= points.length) chart.at = null;
  const seconds = SPANS[history.span];
  const step = history.step_s || seconds / 360;
  const end = Math.max(now(), points.length ? points[points.length - 1][0] : 0);
  // A node that is younger than the span has its line drawn over the whole width all the same, once it is one.
  const begin = Math.max(end - seconds, Math.min(points.length ? points[0][0] : 0, end - seconds / 12));
  const x = (chart.x = (time) => ((time - begin) / (end - begin)) * width);
  const kids = [];
  const pooled = chained();
  const bottom = height - 18;
  const panels = [{ at: 1, name: "own", top: 16, bottom: pooled ? Math.round(bottom * 0.64) : bottom }];
  if (pooled) panels.push({ at: 2, name: "pool", top: panels[0].bottom + 22, bottom });
  chart.panels = panels;
  for (const panel of panels) {
    const most = ceiling(Math.max(0, ...points.map((point) => point[panel.at] || 0)));
    const y = (panel.y = (value) => panel.bottom - ((value || 0) / most) * (panel.bottom - panel.top));
    for (const value of panel.name === "own" ? [most, most / 2] : [most]) {
      const at = Math.round(y(value)) + 0.5;
      kids.push(draw("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }));
      if (points.length)
        kids.push(
          draw(
            "text",
            { x: 0, y: at - 4 },
            `${value === most ? `${panel.name === "own" ? "yours" : "pool"}  ` : ""}${rate(value).replace(/\.0+ /, " ")}`,
          ),
        );
    }
    kids.push(draw("line", { class: "grid", x1: 0, x2: width, y1: panel.bottom + 0.5, y2: panel.bottom + 0.5 }));
    // Where the node did not run there is no line.
    const runs = [];
    points.forEach((point, i) => {
      if (!i || point[0] - points[i - 1][0] > step * 2.5) runs.push([]);
      runs[runs.length - 1].push(`${x(point[0]).toFixed(1)},${y(point[panel.at]).toFixed(1)}`);
    });
    for (const run of runs) {
      const [a, b] = [run[0].split(",")[0], run[run.length - 1].split(",")[0]];
      if (panel.name === "own")
        kids.push(draw("path", { class: "area", d: `M${a},${panel.bottom}L${run.join("L")}L${b},${panel.bottom}Z` }));
      kids.push(draw("path", { class: panel.name, d: run.length > 1 ? `M${run.join("L")}` : `M${run[0]}h1` }));
    }
  }
  const ticks = width < 500 ? 3 : 6;
  const clockwise = seconds <= 86400 ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  for (let i = 0; i < ticks; i += 1) {
    const time = begin + ((i + 0.5) / ticks) * (end - begin);
    kids.push(
      draw("text", { x: x(time).toFixed(0), y: height - 4, "text-anchor": "middle" }, new Date(time * 1000).toLocaleString([], clockwise)),
    );
  }
  kids.push(draw("g", { id: "cursor" }));
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.replaceChildren(...kids);
  renderCursor();
}

/** The values under the pointer; without one the span's averages. */
function renderCursor() {
  const points = chart.points;
  const layer = $("cursor");
  const point = chart.at === null ? null : points[chart.at];
  const bold = (text) => el("b", {}, text);
  if (layer) layer.replaceChildren();
  if (!point) {
    const mean = (i) => points.reduce((sum, p) => sum + (p[i] || 0), 0) / points.length;
    const name = { "1h": "hour", "1d": "day", "7d": "week", "30d": "month" }[period];
    const said = points.length
      ? ["Average of the last ", name, ": ", bold(rate(mean(1))), ...(chained() ? [", pool ", bold(rate(mean(2)))] : [])]
      : ["Figures are drawn as they come, one a minute at first"];
    $("readout").replaceChildren(...said);
    $("chart").setAttribute("aria-label", `Hash rate over time. ${$("readout").textContent}. Arrow keys read single values.`);
    return;
  }
  const px = chart.x(point[0]).toFixed(1);
  layer.append(draw("line", { class: "cursor", x1: px, x2: px, y1: 8, y2: chart.panels[chart.panels.length - 1].bottom }));
  for (const panel of chart.panels)
    layer.append(
      draw("circle", { class: `spot ${panel.name === "own" ? "" : "other"}`, cx: px, cy: panel.y(point[panel.at]).toFixed(1), r: 4.5 }),
    );
  const at = new Date(point[0] * 1000).toLocaleString([], {
    weekday: period === "1h" || period === "1d" ? undefined : "short",
    hour: "2-digit",
    minute: "2-digit",
    day: period === "30d" ? "numeric" : undefined,
    month: period === "30d" ? "short" : undefined,
  });
  $("readout").replaceChildren(
    `${at}: `,
    bold(rate(point[1])),
    ...(chained() ? [", pool ", bold(rate(point[2]))] : []),
    ` · ${count(point[3] || 0, "miner")}, ${whole.format(point[4] || 0)} taken, ${whole.format(point[5] || 0)} refused`,
  );
}

/** Lets pointer and arrow keys read single points of a chart: `chart.at` is the one, `render` shows it, `readout` tells it. */
function readable(box, chart, render, readout) {
  const read = (at) => {
    chart.at = at;
    render();
  };
  const point = (event) => {
    if (!chart.points.length) return;
    const px = event.clientX - box.getBoundingClientRect().left;
    let best = 0;
    chart.points.forEach((point, i) => {
      if (Math.abs(chart.x(point[0]) - px) < Math.abs(chart.x(chart.points[best][0]) - px)) best = i;
    });
    read(best);
  };
  box.addEventListener("pointermove", point);
  box.addEventListener("pointerdown", point);
  box.addEventListener("pointerleave", () => read(null));
  box.addEventListener("blur", () => read(null));
  box.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -12, PageDown: 12 }[event.key];
    if (!by || !chart.points.length) return;
    event.preventDefault();
    const last = chart.points.length - 1;
    read(Math.max(0, Math.min(last, (chart.at ?? last + (by < 0 ? 1 : 0)) + by)));
    box.setAttribute("aria-label", readout.textContent);
  });
}

// ---- The share chain ----

const STEP = () => (window.innerWidth < 720 ? 25 : 30);
const slots = () => Math.max(5, Math.min(200, Math.floor(((document.querySelector(".chain-box").clientWidth || 900) - 36) / STEP()) + 1));
const LANES = [52, 86, 118];
const RADIUS = 7;
const drawn = { nodes: new Map(), order: [], focus: null, chosen: null, top: null };

/** Where everything is: main line, uncles at their own height below it, what else is kept below those. */
function place(view, width) {
  const step = STEP();
  const top = view.shares.length ? view.shares[0].height : 0;
  const x = (height) => width - 18 - (top - height) * step;
  const placed = new Map();
  const taken = new Map();
  const lane = (height) => {
    const next = (taken.get(height) || 0) + 1;
    taken.set(height, next);
    return Math.min(next, LANES.length - 1);
  };
  let before = null;
  let label = -Infinity;
  for (const share of [...view.shares].reverse()) {
    const block = before !== null && share.bitcoin_height > before.bitcoin_height;
    const here = { ...share, kind: "main", x: x(share.height), y: LANES[0], tied: before !== null && share.parent === before.id, block };
    if (block && here.x - label > 96) {
      here.label = whole.format(share.bitcoin_height);
      label = here.x;
    }
    placed.set(share.id, here);
    before = share;
  }
  for (const share of view.shares) {
    for (const uncle of share.uncles || []) {
      if (!placed.has(uncle.id))
        placed.set(uncle.id, { ...uncle, kind: "uncle", x: x(uncle.height), y: LANES[lane(uncle.height)], nephew: share.id });
    }
  }
  for (const share of [...(view.beside || [])].sort((a, b) => a.height - b.height)) {
    if (!placed.has(share.id)) placed.set(share.id, { ...share, kind: "beside", x: x(share.height), y: LANES[lane(share.height)] });
  }
  return placed;
}

/** A line between two circles, relative to the first one's middle. */
function tie(dx, dy, kind) {
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const r = RADIUS + 2;
  return draw("line", {
    class: kind,
    x1: (ux * r).toFixed(1),
    y1: (uy * r).toFixed(1),
    x2: (dx - ux * r).toFixed(1),
    y2: (dy - uy * r).toFixed(1),
  });
}

function describe(share) {
  const what = { main: "Share", uncle: "Uncle", beside: "Share beside the chain" }[share.kind];
  const when = share.time ? `, ${ago(share.time)}` : "";
  const whose = `${share.own ? ", yours" : ""}, ${short(share.address || share.script)}`;
  return `${what} ${whole.format(share.height)}, difficulty ${difficulty(share.difficulty)}${when}${whose}`;
}

function renderChain() {
  const view = data.chain;
  const box = $("links");
  const width = box.clientWidth;
  if (!view || !width) return;
  show("chain-empty", !view.shares.length);
  box.toggleAttribute("hidden", !view.shares.length);
  const placed = place(view, width);
  box.setAttribute("viewBox", `0 0 ${width} ${box.clientHeight || 150}`);
  const moved = drawn.top !== null && from === null && view.shares.length && view.shares[0].height - drawn.top;
  const slide = moved > 0 && moved < 12 && drawn.width === width && !matchMedia("(prefers-reduced-motion: reduce)").matches;
  drawn.top = view.shares.length ? view.shares[0].height : null;
  drawn.width = width;
  for (const [id, node] of drawn.nodes) {
    if (!placed.has(id)) {
      node.remove();
      drawn.nodes.delete(id);
    }
  }
  const fresh = drawn.nodes.size > 0;
  drawn.order = [...placed.values()].sort((a, b) => a.x - b.x || a.y - b.y).map((share) => share.id);
  for (const id of drawn.order) {
    const share = placed.get(id);
    let node = drawn.nodes.get(id);
    const sign = `${share.x > drawn.width - 60} ${share.kind} ${share.own} ${share.tied} ${share.nephew} ${share.label} ${share.y}`;
    if (!node) {
      node = draw("g", { role: "button", tabindex: "-1", "data-id": id });
      drawn.nodes.set(id, node);
      if (fresh) node.classList.add("fresh");
    }
    if (node.sign !== sign || share.kind === "beside") {
      node.sign = sign;
      node.replaceChildren(...shape(share, placed));
    }
    const marks = [share.own && "own", node.classList.contains("fresh") && "fresh", drawn.chosen === id && "chosen"];
    node.setAttribute("class", ["node", share.kind, ...marks.filter(Boolean)].join(" "));
    const said = describe(share);
    node.setAttribute("aria-label", said);
    put(node.querySelector("title"), said);
    const here = `translate(${share.x.toFixed(1)} ${share.y})`;
    node.setAttribute("transform", here);
    if (slide && node.animate)
      node.animate([{ translate: `${moved * STEP()}px 0` }, { translate: "0 0" }], { duration: 500, easing: "ease-out" });
    if (node.parentNode !== box) box.append(node);
  }
  if (!placed.has(drawn.focus)) drawn.focus = view.shares.length ? view.shares[0].id : null;
  for (const [id, node] of drawn.nodes) node.setAttribute("tabindex", id === drawn.focus ? "0" : "-1");
  $("newer").disabled = from === null;
  $("older").disabled = !view.shares.length || view.shares[view.shares.length - 1].height <= Math.max(1, view.lowest);
}

function shape(share, placed) {
  const kids = [];
  const anchor = share.x > drawn.width - 60 ? "end" : "middle";
  if (share.block) kids.push(draw("line", { class: "tick", x1: -STEP() / 2, x2: -STEP() / 2, y1: 20 - share.y, y2: 140 - share.y }));
  if (share.label) kids.push(draw("text", { x: -STEP() / 2, y: 14 - share.y, "text-anchor": anchor }, `block ${share.label}`));
  if (share.kind === "main" && share.tied) kids.push(tie(-STEP(), 0, "line"));
  const nephew = placed.get(share.nephew);
  if (nephew) kids.push(tie(nephew.x - share.x, nephew.y - share.y, "tie"));
  const parent = share.kind === "beside" && placed.get(share.parent);
  if (parent) kids.push(tie(parent.x - share.x, parent.y - share.y, "stray"));
  kids.push(
    draw("title"),
    draw("circle", { class: "halo", r: 12 }),
    draw("circle", { class: "core", r: share.kind === "main" ? RADIUS : RADIUS - 1.5 }),
  );
  if (share.kind === "main" && share.height % 10 === 0)
    kids.push(draw("text", { y: 148 - share.y, "text-anchor": anchor }, whole.format(share.height)));
  return kids;
}

/** Shows one share's details. */
async function choose(id) {
  drawn.chosen = id;
  renderChain();
  const box = $("share-facts");
  show("share", true);
  let share;
  try {
    share = await ask(`/api/v1/share/${id}`);
  } catch (error) {
    if (drawn.chosen !== id) return;
    put("share-title", "Share");
    box.replaceChildren(el("div", { class: "wide" }, el("dt", {}, short(id)), el("dd", {}, error.message)));
    return;
  }
  if (drawn.chosen !== id) return;
  const view = data.chain || { shares: [], beside: [] };
  const listed = [...view.shares, ...view.shares.flatMap((s) => s.uncles || []), ...(view.beside || [])].find((s) => s.id === id) || {};
  const link = (other) => el("button", { type: "button", class: "quiet num", onclick: () => choose(other) }, short(other, 8, 8));
  const standing =
    { confirmed: "in the confirmed chain", uncle: "uncle", beside: "beside the chain" }[share.place] ||
    (share.confirmed ? "in the confirmed chain" : "not confirmed");
  const facts = [
    ["Id", el("span", { class: "num" }, id), true],
    ["Miner", el("span", { class: "num" }, share.address || share.script), true],
    ["Standing", standing + (listed.own ? ", yours" : "")],
    ["Time", `${moment(share.time)}, ${ago(share.time)}`],
    ["Difficulty", isNumber(listed.difficulty) ? difficulty(listed.difficulty) : `bits ${share.bits}`],
    ["Parent", link(share.parent)],
    ...(share.nephew ? [["Credited by", link(share.nephew)]] : []),
    ...(share.uncles && share.uncles.length ? [["Uncles", el("span", {}, ...share.uncles.map((uncle) => link(uncle.id || uncle)))]] : []),
    ["Works on Bitcoin block", whole.format(share.bitcoin_height)],
    ["Would have paid", coins(share.value)],
    ["Coinbase", `class ${share.class}, ${share.layout}`],
    ["Work up to it", scaled(share.score, HASHES).join(" ")],
  ];
  put("share-title", `Share ${whole.format(share.height)}`);
  box.replaceChildren(
    ...facts.map(([name, value, wide]) => el("div", { class: wide ? "wide" : "" }, el("dt", {}, name), el("dd", {}, value))),
  );
}

// ---- Miners ----

const opened = new Map(); // Addresses whose workers are shown, or are not, because the visitor said so.
let minersShown = 10;
let addresses = new Set(); // Those that mine here.

const places = new Map(); // Where each address stands on the page.

const isOpen = (address) => opened.get(address) ?? (places.get(address) ?? 0) < 3;

async function readMiners() {
  const list = await ask(`/api/v1/miners?count=${minersShown}&sort=rate`);
  const open = list.list.filter((miner) => miner.address && isOpen(miner.address));
  const details = await Promise.all(
    open.slice(0, 8).map((miner) => ask(`/api/v1/miners/${encodeURIComponent(miner.address)}`).catch(() => null)),
  );
  data.miners = list;
  for (const miner of details) if (miner) data.workers.set(miner.address, miner.list_workers || []);
  addresses = new Set(list.list.map((miner) => miner.address));
  renderMiners();
  renderRates();
  renderPayouts();
}

/** Why submits were refused, in words. */
function refusals(accepted, reasons) {
  const names = { stale: "too late", duplicate: "twice", low: "too little work", malformed: "malformed", other: "other" };
  const rows = Object.entries(reasons || {}).filter(([, n]) => n > 0);
  const all = rows.reduce((sum, [, n]) => sum + n, 0);
  return {
    text: all ? part(all / (all + accepted)) : "none",
    small: rows.map(([name, n]) => `${names[name] || name} ${whole.format(n)}`).join(", "),
  };
}

function renderMiners() {
  const view = data.miners;
  const box = $("miners-list");
  const old = new Map([...box.children].map((node) => [node.dataset.key, node]));
  // In the order in which they were first seen: rates change all the time, and rows that jump about cannot be read.
  for (const miner of view.list) if (!places.has(miner.address)) places.set(miner.address, places.size);
  const listed = [...view.list].sort((a, b) => places.get(a.address) - places.get(b.address));
  listed.forEach((miner, i) => {
    let node = old.get(miner.address);
    if (!node) {
      const id = `workers-${miner.address}`;
      const told = el("p", { class: "mute" });
      const button = el("button", { type: "button", class: "quiet" });
      node = el("div", { class: "group" }, el("div", { class: "head" }, el("h3"), told, button), el("div", { id }));
      node.dataset.key = miner.address;
      button.addEventListener("click", () => {
        opened.set(miner.address, button.getAttribute("aria-expanded") !== "true");
        renderMiners();
        soon(["miners"]);
      });
    }
    const open = isOpen(miner.address);
    const [head, workers] = node.children;
    const [name, told, button] = head.children;
    const title = `${miner.address}${miner.address === mine ? " yours" : ""}`;
    if (name.sign !== title) {
      name.sign = title;
      name.replaceChildren(
        el("span", { class: "num", title: miner.address }, short(miner.address, 12, 8)),
        ...(miner.address === mine ? [" ", el("span", { class: "tag" }, "my address")] : []),
      );
    }
    const blocks = miner.blocks ? ` · ${count(miner.blocks, "block")}` : "";
    const online = `${count(miner.workers, "worker")}, ${miner.connected ? count(miner.connected, "connection") : "offline"}`;
    put(told, `${rate(miner.rates["15m"])} · ${online} · ${count(miner.shares, "share")}${blocks}`);
    put(button, open ? "Hide workers" : "Show workers").setAttribute("aria-expanded", String(open));
    workers.hidden = !open;
    if (box.children[i] !== node) box.insertBefore(node, box.children[i] || null);
    old.delete(miner.address);
    if (open) renderWorkers(workers, data.workers.get(miner.address) || []);
  });
  old.forEach((node) => node.remove());
  const { totals } = view;
  const rates = `1 d ${rate(totals.rates["1d"])} · 7 d ${rate(totals.rates["7d"])}`;
  const who = `${count(view.miners, "address", "addresses")}, ${count(view.workers, "worker")}`;
  put("miners-note", view.list.length ? `${who} · ${rates} · ${refusals(totals.accepted, totals.rejected).text} refused` : "");
  show("miners-empty", !view.list.length);
  show("miners-more", view.list.length < view.miners && view.list.length >= minersShown);
}

const WORKERS_SHOWN = 100;
const WORKERS = [
  ["Worker"],
  ["5 min", "right", "Hash rate of the last five minutes"],
  ["1 h", "right"],
  ["1 d", "right"],
  ["Difficulty", "right", "Of the work that it is given"],
  ["Best", "right", "Its luckiest hash ever, by difficulty"],
  ["Last share", "right", "When it last handed in work"],
  ["Refused", "right"],
];

function renderWorkers(box, workers) {
  const byName = (a, b) => (b.connected > 0) - (a.connected > 0) || a.name.localeCompare(b.name, [], { numeric: true });
  list(
    box.id,
    WORKERS,
    [...workers]
      .sort(byName)
      .slice(0, WORKERS_SHOWN)
      .map((worker) => {
        const no = refusals(worker.accepted, worker.rejected);
        const row = [
          worker.name,
          {
            text: worker.name || "(no name)",
            dot: worker.connected ? "good" : "off",
            small: worker.agent,
            tag: worker.connected > 1 ? `× ${worker.connected}` : "",
            title: worker.connected ? `connected for ${span(now() - worker.since)}` : "offline",
          },
          rate(worker.rates["5m"]),
          rate(worker.rates["1h"]),
          rate(worker.rates["1d"]),
          difficulty(worker.difficulty),
          { text: difficulty(worker.best_ever), title: `since the start ${difficulty(worker.best)}` },
          {
            text: worker.last_share ? ago(worker.last_share) : "none yet",
            small: worker.connected ? "" : "offline",
            title: worker.last_share ? moment(worker.last_share) : "",
          },
          { text: no.text, small: no.small, title: `${whole.format(worker.accepted)} taken` },
        ];
        row.off = !worker.connected;
        return row;
      }),
  );
}

// ---- Payouts and my address ----

let paysShown = 10;

async function readPayouts() {
  // The largest coinbase shows most of those who are paid.
  const path = "/api/v1/payouts?class=N360";
  let error = null;
  data.payouts = await ask(mine ? `${path}&address=${encodeURIComponent(mine)}` : path).catch(async (failed) => {
    if (!mine || failed.status === undefined) throw failed;
    error = failed.message;
    return ask(path);
  });
  renderPayouts();
  renderNext();
  renderMine(error);
}

function renderPayouts() {
  const view = data.payouts;
  if (!view) return;
  const ours = (pay) => addresses.has(pay.address) || (mine && pay.address === mine);
  const pays = [...view.pays].sort((a, b) => b.sats - a.sats);
  put(
    "payouts-note",
    pays.length
      ? `${coins(view.value)} to ${count(view.payees, "address", "addresses")}, at block ${whole.format(view.bitcoin_height)}`
      : "",
  );
  show("payouts-empty", !pays.length);
  put("payouts-empty", view.note ? `${sentence(view.note)}.` : "Nobody has work in the window yet.");
  keyed(
    $("pays"),
    pays.slice(0, paysShown).map((pay) => ({ ...pay, ours: ours(pay), mine: pay.address === mine })),
    (pay) => pay.script,
    (pay, node) => {
      node.className = pay.ours ? "own" : "";
      return [
        el(
          "span",
          { class: "num", title: pay.address || pay.script },
          short(pay.address || pay.script, 8, 5),
          pay.ours && " ",
          pay.ours && el("span", { class: "tag" }, pay.mine ? "my address" : "yours"),
        ),
        el("span", { class: "right" }, coins(pay.sats)),
        el("span", { class: "right mute" }, part(pay.sats / view.value)),
      ];
    },
    "li",
  );
  show("pays-more", pays.length > paysShown);
  const box = $("split");
  show("split", pays.length > 0);
  let at = 0;
  // Small ones become one piece: lines finer than a pixel tell nothing.
  const pieces = pays.filter((pay) => pay.sats / view.value > 0.004);
  const rest = 1 - pieces.reduce((sum, pay) => sum + pay.sats / view.value, 0);
  box.setAttribute("viewBox", "0 0 1000 14");
  box.setAttribute("preserveAspectRatio", "none");
  box.replaceChildren(
    ...pieces
      .map((pay) => [pay.sats / view.value, ours(pay)])
      .concat(rest > 0.001 ? [[rest, false]] : [])
      .map(([size, own]) => {
        const piece = draw("rect", {
          x: (at * 1000).toFixed(2),
          y: -2,
          width: (size * 1000).toFixed(2),
          height: 18,
          class: own ? "own" : "",
        });
        at += size;
        return piece;
      }),
  );
}

function renderMine(error) {
  const you = !error && mine && data.payouts && data.payouts.you;
  $("mine-note").classList.toggle("bad", Boolean(error));
  put(
    "mine-note",
    error ||
      (data.status && data.status.mode === "solo" ? SOLO : mine
        ? "Only this browser remembers the address. The page’s own address has it too: bookmark it."
        : "What the next block pays an address. Only this browser remembers it."),
  );
  show("mine-facts", Boolean(you));
  if (!you) return;
  const sure = you.chance === null || you.chance === undefined || you.chance >= 1;
  const facts = [
    ["Next block pays", coins(you.sats)],
    ["Part of the window’s work", part(you.weight || 0)],
    ...(isNumber(you.credit_shares) ? [["Shares credited", whole.format(Math.round(you.credit_shares * 100) / 100)]] : []),
    ...(sure ? [] : [["Chance to be drawn", chance(you.chance)]]),
    ...(you.pending ? [["A block pays on average", coins(you.pending.block_sats)]] : []),
    ...(you.pending && isNumber(you.pending.sats) ? [["Its work is worth", coins(you.pending.sats)]] : []),
  ];
  keyed(
    $("mine-facts"),
    facts,
    ([name]) => name,
    ([name, value]) => [el("dt", {}, name), el("dd", { class: "big" }, value)],
    "div",
  );
}

/** An address in the page's own: not the name of a section. */
function hashed() {
  const text = location.hash.slice(1);
  return /^[a-zA-Z0-9]{26,100}$/.test(text) ? text : "";
}

function look(address) {
  mine = address;
  remember("localStorage", "address", address || null);
  $("mine-address").value = address;
  if (data.status) renderConnect();
  if (data.miners) renderMiners();
  soon(["payouts"]);
}

// ---- Blocks ----

let blocksShown = 6;

/** The worker's part of a user name. */
const worker = (name) => name.replace(/^[a-zA-Z0-9]+[^a-zA-Z0-9]?/, "") || short(name);

function renderBlocks() {
  const view = data.blocks;
  if (!view) return;
  const efforts = new Map(
    ((data.pool && data.pool.luck && data.pool.luck.blocks) || []).map((block) => [block.hash, block.effort_percent]),
  );
  const states = { open: "not yet in Bitcoin’s chain", in_chain: "in Bitcoin’s chain", stale: "stale, another took its place" };
  list(
    "blocks-list",
    [
      ["Found"],
      ["Height", "right"],
      ["By"],
      ["Pays", "right"],
      ["Effort", "right", "Work of the pool for it, of what one takes on average"],
      ["Standing"],
    ],
    view.blocks.map((block) => {
      const effort = efforts.get(block.hash);
      const fates = block.fates.map((fate) => `${fate.node}: ${fate.fate}${fate.why ? `, ${fate.why}` : ""}`).join("; ");
      return [
        block.hash,
        { text: ago(block.time), small: moment(block.time), title: block.hash },
        whole.format(block.height),
        {
          text: block.found_by === "miner" ? worker(block.name) : short(block.address || "", 10, 6),
          title: block.name,
          small: block.found_by === "miner" ? "your miner" : "another node’s miner",
        },
        block.value ? coins(block.value) : "–",
        effortText(effort),
        {
          text: block.state === "in_chain" ? count(block.confirmations, "confirmation") : states[block.state] || block.state,
          dot: block.state === "stale" ? "off" : block.state === "in_chain" ? "good" : "waiting",
          small: fates || "no bitcoind has said anything yet",
        },
      ];
    }),
  );
  show("blocks-more", view.blocks.length === blocksShown && blocksShown < 200);
  show("blocks-empty", !view.blocks.length);
  show("blocks-list", view.blocks.length > 0);
  const known = [...efforts.values()].filter(isNumber);
  const mean = known.reduce((sum, effort) => sum + effort, 0) / known.length;
  put("blocks-note", known.length ? `mean effort of the last ${known.length}: ${effortText(mean)}` : "");
}

let hideBanner = 0;

function celebrate(block) {
  put("banner-title", block.miner ? "Your miner found a block" : "A block was found");
  put("banner-text", `at height ${whole.format(block.height)}, just now.`);
  if ($("banner").hidden) show("banner", true);
  clearTimeout(hideBanner);
  hideBanner = setTimeout(() => show("banner", false), 120000);
}

// ---- Peers ----

function renderPeers() {
  const view = data.peers;
  const arrows = { inbound: "came in", outbound: "dialled", feeler: "looked at" };
  list(
    "peers-list",
    [
      ["Peer"],
      ["Connected", "right"],
      ["Ping", "right", "Newest, and the fastest"],
      ["Height", "right"],
      ["In", "right", "Bytes from it"],
      ["Out", "right", "Bytes to it"],
      ["Transport"],
    ],
    view.peers.map((peer) => [
      peer.addr,
      {
        text: peer.addr,
        num: true,
        dot: peer.up ? "good" : "waiting",
        small: [arrows[peer.direction], peer.agent].filter(Boolean).join(", "),
        tag: peer.configured ? "configured" : "",
      },
      span(now() - peer.since),
      {
        text: isNumber(peer.ping_ms) ? `${peer.ping_ms.toFixed(peer.ping_ms < 10 ? 1 : 0)} ms` : "–",
        title: isNumber(peer.ping_best_ms) ? `fastest ${peer.ping_best_ms} ms` : "",
      },
      isNumber(peer.height) ? whole.format(peer.height) : "–",
      bytes(peer.bytes_in),
      bytes(peer.bytes_out),
      peer.transport === "v2" ? "encrypted" : "plain",
    ]),
  );
  put(
    "peers-note",
    `${count(view.outbound, "outbound", "outbound")}, ${whole.format(view.inbound)} of at most ${whole.format(view.inbound_max)} inbound`,
  );
  show("peers-list", view.peers.length > 0);
  show("peers-empty", !view.peers.length);
  show("left", view.left.length > 0);
  list(
    "left-list",
    [["Peer"], ["Left", "right"], ["Stayed", "right"], ["Why"]],
    view.left
      .slice(0, 30)
      .map((peer, i) => [
        `${peer.addr} ${peer.at} ${i}`,
        { text: peer.addr, num: true, small: arrows[peer.direction] },
        ago(peer.at),
        span(peer.stayed_s),
        peer.why,
      ]),
  );
}

// ---- The operator's part ----

/** Of each part of the page that needs a token, why the present one does not open it; null while nothing speaks against it. */
const shut = { operator: null, portfolio: null };

function operates() {
  return token && !shut.operator && $("operator-box").open;
}

/** A part is not opened by this token. There are tokens for portfolios only; one that opens nothing is forgotten. */
function closed(part, error) {
  shut[part] = error;
  if (shut.operator && shut.portfolio) refused(shut.operator);
  else renderOperator(token && shut.operator ? "This token opens portfolios only." : "");
}

function refused(error) {
  use(null);
  renderOperator(`The token was refused: ${error.message}`);
}

/** From now on this token is given; null: none. Whoever shows what belongs to a token hears of it. */
function use(given) {
  token = given;
  remember("sessionStorage", "token", token);
  shut.operator = shut.portfolio = null;
  renderOperator();
  document.dispatchEvent(new Event("token"));
  soon(Object.keys(sources).filter((name) => sources[name].denied));
}

function renderOperator(said) {
  show("operator-in", Boolean(token && !shut.operator));
  if (!token || shut.operator) for (const id of ["sessions-list", "bans-list"]) $(id).replaceChildren();
  put("token-set", token ? "Forget" : "Use");
  $("token").disabled = Boolean(token);
  $("token-note").classList.toggle("bad", Boolean(said));
  renderOperator.note ??= [...$("token-note").childNodes];
  $("token-note").replaceChildren(...(said ? [said] : renderOperator.note));
}

function renderSessions() {
  list(
    "sessions-list",
    [["Worker"], ["From"], ["Connected", "right"], ["Difficulty", "right"], ["In", "right"], ["Out", "right"], ["Last share", "right"]],
    data.sessions.list.map((session) => [
      session.addr,
      { text: session.worker || short(session.address), small: session.agent },
      { text: session.addr, num: true },
      span(now() - session.since),
      difficulty(session.difficulty),
      bytes(session.bytes_in),
      bytes(session.bytes_out),
      ago(session.last_share),
    ]),
  );
}

function renderBans() {
  list(
    "bans-list",
    [["Banned"], ["Until"], ["Reason"], [""]],
    data.bans.bans.map((ban) => [
      ban.of,
      { text: ban.of, num: true },
      moment(ban.until),
      ban.reason || "–",
      {
        button: "Lift",
        act: () => change("DELETE", `/api/v1/bans/${encodeURIComponent(ban.of)}`, null, `The ban of ${ban.of} is lifted.`),
      },
    ]),
  );
  show("bans-list", data.bans.bans.length > 0);
  show("bans-empty", !data.bans.bans.length);
}

async function change(method, path, body, done) {
  let said = done;
  try {
    await ask(path, { method, body, signed: true });
  } catch (error) {
    said = error.message;
    if (error.status === 401) closed("operator", error);
  }
  put("operator-said", said);
  show("operator-said", true);
  soon(["bans", "peers"]);
}

// ---- What the visitor does ----

const THEMES = ["auto", "dark", "light"];

function theme(wanted) {
  const name = THEMES.includes(wanted) ? wanted : "auto";
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  put("theme", { auto: "◐ Auto", dark: "● Dark", light: "○ Light" }[name]);
  $("theme").setAttribute("aria-label", { auto: "Theme: as the system", dark: "Theme: dark", light: "Theme: light" }[name]);
  $("theme").dataset.choice = name;
}

function wire() {
  theme(remember("localStorage", "theme"));
  $("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf($("theme").dataset.choice) + 1) % THEMES.length];
    remember("localStorage", "theme", next === "auto" ? null : next);
    theme(next);
  });
  $("banner-close").addEventListener("click", () => show("banner", false));
  $("spans").addEventListener("click", (event) => {
    if (!event.target.dataset.span) return;
    period = event.target.dataset.span;
    remember("localStorage", "span", period);
    chart.at = null;
    for (const button of $("spans").children) button.setAttribute("aria-pressed", String(button.dataset.span === period));
    soon(["history"]);
  });
  readable($("chart"), chart, renderCursor, $("readout"));
  const links = $("links");
  links.addEventListener("click", (event) => {
    const node = event.target.closest(".node");
    if (node) {
      drawn.focus = node.dataset.id;
      choose(node.dataset.id);
    }
  });
  links.addEventListener("keydown", (event) => {
    const node = event.target.closest(".node");
    if (!node) return;
    const at = drawn.order.indexOf(node.dataset.id);
    const to = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1, Home: 0, End: drawn.order.length - 1 }[
      event.key
    ];
    if (event.key === "Enter" || event.key === " ") choose(node.dataset.id);
    else if (to === undefined || !drawn.order[to]) return;
    else {
      drawn.focus = drawn.order[to];
      for (const [id, other] of drawn.nodes) other.setAttribute("tabindex", id === drawn.focus ? "0" : "-1");
      drawn.nodes.get(drawn.focus).focus();
    }
    event.preventDefault();
  });
  $("share-close").addEventListener("click", () => {
    drawn.chosen = null;
    show("share", false);
    renderChain();
  });
  $("older").addEventListener("click", () => {
    const shares = data.chain ? data.chain.shares : [];
    if (shares.length) from = shares[shares.length - 1].height;
    soon(["chain"]);
  });
  $("newer").addEventListener("click", () => {
    from = null;
    soon(["chain"]);
  });
  $("miners-more").addEventListener("click", () => {
    minersShown = Math.min(200, minersShown * 4);
    soon(["miners"]);
  });
  $("blocks-more").addEventListener("click", () => {
    blocksShown = Math.min(200, blocksShown * 4);
    soon(["blocks"]);
  });
  $("pays-more").addEventListener("click", () => {
    paysShown = Infinity;
    renderPayouts();
  });
  $("mine-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const address = $("mine-address").value.trim();
    if (location.hash.slice(1) !== address) history.replaceState(null, "", address ? `#${encodeURIComponent(address)}` : location.pathname);
    look(address);
  });
  window.addEventListener("hashchange", () => {
    if (hashed()) look(hashed());
  });
  $("operator-box").addEventListener("toggle", () => plan());
  $("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = token ? null : $("token").value.trim() || null;
    $("token").value = "";
    use(given);
  });
  $("peer-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const addr = $("peer-addr").value.trim();
    change("POST", "/api/v1/peers", { addr }, `${addr} is being dialled.`);
  });
  $("ban-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const addr = $("ban-addr").value.trim();
    change("POST", "/api/v1/bans", { addr, seconds: 86400, reason: $("ban-reason").value.trim() }, `${addr} is banned for a day.`);
  });
  // A browser has few connections to a host: tabs that nobody looks at leave theirs to others after a while.
  let rest = 0;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(rest);
    if (document.hidden) {
      rest = setTimeout(() => {
        stream.close();
        live = false;
        plan();
      }, 60000);
    } else if (!live) listen();
    plan();
  });
  window.addEventListener("online", () => {
    if (!live) listen();
  });
  let resize = 0;
  window.addEventListener("resize", () => {
    clearTimeout(resize);
    resize = setTimeout(() => {
      drawn.top = null;
      renderChart();
      renderChain();
      soon(["chain"], 0.5);
    }, 150);
  });
  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        const id = entry.target.id || "tiles";
        if (entry.isIntersecting) seen.add(id);
        else seen.delete(id);
      }
      plan();
    },
    { rootMargin: "200px" },
  );
  for (const section of document.querySelectorAll("main section")) watch.observe(section);
}

wire();
renderOperator();
mine = hashed() || remember("localStorage", "address") || "";
$("mine-address").value = mine;
renderState();
seen.add("rate");
listen();
plan();
