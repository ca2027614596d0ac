// The dashboard's section on portfolios: what somebody owns and what it is worth. It is there only for who has given a token, on a node
// that keeps portfolios. It stands on script.js: its tools, its clock of what is asked when, and its token.
"use strict";

// ---- What is known ----

/** What a token shows; forgotten with it. */
const nothing = (turn) => ({ turn, id: null, list: null, whole: null, holdings: null, history: null, everything: new Set() });
let folio = nothing(0);
let currency = remember("localStorage", "currency");
let days = Number(remember("localStorage", "days"));
if (![30, 90, 365, 3650].includes(days)) days = 90;

/** Prices are asked for each minute, balances each hour at least: what is older than these seconds is told as old. */
const OLD_PRICE = 600;
const OLD_BALANCE = 7200;
/** Rows of a list at first. */
const ROWS = 12;

/** The kinds of accounts: a title, and what is to be known before one is added. */
const KINDS = {
  bitcoin: ["Bitcoin address", "bc1q…", "The node’s own bitcoind looks it up: nobody else learns of it."],
  evm: ["Ethereum and others", "0x…", "One address on as many of these chains as you like. Their public nodes see it when they are asked."],
  okx: [
    "OKX",
    "",
    "Make an API key at OKX that may read and nothing else. It is kept encrypted on the node and never shown again, not even to you.",
  ],
  miner: ["A miner here", "bc1q…", "What this pool’s blocks have paid an address that mines here, and what the next one would."],
};
const CHAINS = ["ethereum", "arbitrum", "optimism", "base", "polygon", "bsc"];
const CHAIN_NAMES = { bsc: "BNB Chain", ethereum: "Ethereum", bitcoin: "Bitcoin" };
const SECRETS = ["key", "secret", "passphrase"];
let kind = "bitcoin";

// ---- Figures as people read them ----

const ISO = new Set(Intl.supportedValuesOf ? Intl.supportedValuesOf("currency") : ["USD", "EUR", "GBP", "JPY"]);

/** A value in a currency. Small ones keep four digits; those of coins are told to the eighth place. */
function valued(value, code = folio.whole.currency) {
  if (!isNumber(value)) return "–";
  const unit = code.toUpperCase();
  const small = Math.abs(value) < 1 && value !== 0;
  const shape = small ? { maximumSignificantDigits: 4 } : {};
  if (ISO.has(unit)) return new Intl.NumberFormat("en", { style: "currency", currency: unit, ...shape }).format(value);
  return `${new Intl.NumberFormat("en", { maximumFractionDigits: 8, ...shape }).format(value)} ${unit}`;
}

/** An exact amount, told to the eighth place. */
function exact(text) {
  const [units, rest = ""] = String(text ?? "–").split(".");
  const cut = rest.slice(0, 8).replace(/0+$/, "");
  const front = units.replace(/\B(?=(\d{3})+$)/g, ",");
  if (!cut && units === "0" && /[1-9]/.test(rest)) return "< 0.00000001";
  return cut ? `${front}.${cut}${rest.length > 8 && /[1-9]/.test(rest.slice(8)) ? "…" : ""}` : front;
}

const chainName = (name) => CHAIN_NAMES[name] || sentence(name);
/** What is known by an address or by an exchange only has no other name. */
const symbol = (coin) => (coin.symbol ? coin.symbol.toUpperCase() : short(coin.asset.split(":").pop()));

/** Where a holding lies. */
function placeName(place) {
  const names = { trading: "trading account", funding: "funding account", paid: "paid by blocks", immature: "paid, cannot be spent yet" };
  return names[place] || chainName(place);
}

// ---- Asking ----

sources.portfolio = {
  // Who is shown something is taken as looking by the node too, which then asks outside more often: out of sight it is not asked.
  every: () => (shut.portfolio ? 300 : 15),
  wanted: () => token && (!folio.list || seen.has("portfolio")),
  denied: signedOut,
  run: readPortfolios,
};

sources.worth = {
  where: ["portfolio"],
  every: () => 600,
  wanted: () => token && folio.id !== null,
  run: async () => {
    const view = looked();
    const history = await signed("/history", `days=${days}`);
    if (view !== looked()) return;
    folio.history = history;
    renderWorth();
  },
};

/** Asks for something of the portfolio that is looked at, in the chosen currency. */
function signed(more, ...query) {
  const asked = [currency && `currency=${encodeURIComponent(currency)}`, ...query].filter(Boolean).join("&");
  return ask(`/api/v1/portfolios${more === null ? "" : `/${folio.id}${more}`}${asked && `?${asked}`}`, { signed: true });
}

/** What is looked at. What comes for something else, or for another token, comes too late. */
const looked = () => `${folio.turn} ${folio.id} ${currency} ${days}`;

async function readPortfolios() {
  const { turn } = folio;
  let list;
  try {
    list = await signed(null);
  } catch (error) {
    if (turn !== folio.turn) return;
    if (error.status === 404) {
      // They are off.
      forget();
      closed("portfolio", error);
    } else if (error.status === 400 && currency) {
      // The currency is remembered of another node, or of before.
      changeCurrency(null);
    } else missed(error);
    throw error;
  }
  if (turn !== folio.turn) return;
  shut.portfolio = null;
  folio.list = list;
  const { portfolios } = list;
  if (!portfolios.some((one) => one.id === folio.id)) {
    const known = Number(remember("sessionStorage", "portfolio"));
    visit((portfolios.find((one) => one.id === known) || portfolios[0] || { id: null }).id);
    soon(["worth"]);
  }
  renderPortfolios();
  if (folio.id !== null) await readWhole();
}

async function readWhole() {
  const view = looked();
  try {
    const [whole, holdings] = await Promise.all([signed(""), signed("/holdings")]);
    if (view !== looked()) return;
    Object.assign(folio, { whole, holdings });
  } catch (error) {
    if (view !== looked()) return;
    // Somebody has removed it meanwhile: the list tells what is left.
    if (error.status !== 404) missed(error);
    throw error;
  }
  tell("portfolio-ill", "");
  renderWhole();
}

/** The token is no longer good: those of an identity provider last minutes. */
function signedOut(error) {
  const shown = folio.list;
  refused(error);
  if (!shown) return;
  put("banner-title", "Signed out:");
  put("banner-text", `${error.message}. Give a new token below, under Operator.`);
  show("banner", true);
}

/** They cannot be read: what was known stands. */
function missed(error) {
  if (error.status === 401 || error.status === 403) return;
  const said = `Portfolios cannot be read at present: ${error.message}.`;
  tell("portfolio-ill", said);
  tell("portfolio-why", folio.list ? "" : said);
  // The node may be fetching the keys that tokens are checked by.
  if (error.status === 503 && !folio.list) sources.portfolio.next = Date.now() + 2000;
}

/** Shows a sentence, or none. */
function tell(id, text) {
  put(id, text || "");
  show(id, Boolean(text));
}

// ---- Showing ----

function renderPortfolios() {
  const { list } = folio;
  show("portfolio", Boolean(list));
  show("portfolio-on", Boolean(list));
  show("portfolio-off", !list);
  if (!list) return;
  tell("portfolio-why", "");
  put("portfolio-who", list.user ? `signed in as ${list.user.name}` : "");
  const option = (node, value, text) => {
    node.value = value;
    return [text];
  };
  const { portfolios } = list;
  keyed(
    $("portfolio-choice"),
    portfolios.map(({ id, name }) => ({ id, name })),
    (one) => one.id,
    (one, node) => option(node, one.id, one.name),
    "option",
  );
  show("portfolio-choice", portfolios.length > 1);
  keyed(
    $("currency"),
    list.currencies,
    (code) => code,
    (code, node) => option(node, code, code.toUpperCase()),
    "option",
  );
  $("currency").value = list.currency;
  const chosen = portfolios.find((one) => one.id === folio.id);
  if (chosen) {
    $("portfolio-choice").value = chosen.id;
    put("portfolio-remove", `Remove “${chosen.name}”`);
  } else {
    show("portfolio-whole", false);
    $("portfolios-box").open = true;
  }
  show("portfolio-remove", Boolean(chosen));
}

function renderWhole() {
  const { whole } = folio;
  const { value, accounts } = whole;
  show("portfolio-whole", true);
  put("worth", valued(value.amount));
  const ages = [
    isNumber(value.price_age_s) && `prices of ${span(value.price_age_s)} ago`,
    isNumber(value.checked_age_s) && `balances looked up ${span(value.checked_age_s)} ago`,
  ];
  put("worth-note", sentence(ages.filter(Boolean).join(", ")) || "\u00a0");
  keyed(
    $("worth-doubts"),
    doubts(value, accounts),
    (said) => said,
    (said) => [said],
    "li",
  );
  show("worth-graph", accounts.length > 0 || Boolean(folio.history && folio.history.points.length));
  renderAllocation();
  renderAccounts();
  renderHoldings();
  renderWorth();
}

/** What is to be known of a value before it is believed. */
function doubts(value, accounts) {
  if (!accounts.length) return [];
  const ill = accounts.filter((account) => account.trouble).length;
  const fresh = accounts.filter((account) => !account.checked && !account.trouble).length;
  return [
    value.price_age_s > OLD_PRICE && `The oldest price is of ${span(value.price_age_s)} ago: nothing newer has come since, so it stands.`,
    ill && `${count(ill, "account")} could not be looked up: what was last known of ${ill === 1 ? "it" : "them"} is counted.`,
    !ill &&
      value.checked_age_s > OLD_BALANCE &&
      `The oldest balance is of ${span(value.checked_age_s)} ago: where it comes from has not answered since.`,
    fresh && `${count(fresh, "account")} not looked up yet: that takes a minute or two.`,
    value.unpriced && `${count(value.unpriced, "holding")} without a known price ${value.unpriced === 1 ? "is" : "are"} not counted.`,
  ].filter(Boolean);
}

function renderAllocation() {
  const { allocation } = folio.whole;
  const rows = folio.everything.has("allocation") ? allocation : allocation.slice(0, ROWS);
  // Shades repeat no colour: the first few have one each, what is small shares the last.
  const shade = (i) => `shade${Math.min(i, 5)}`;
  keyed(
    $("allocation"),
    rows.map((coin, i) => ({ ...coin, i, code: folio.whole.currency })),
    (coin) => coin.asset,
    (coin) => [
      el(
        "span",
        { title: coin.name || coin.asset },
        isNumber(coin.share) && el("i", { class: `key ${shade(coin.i)}` }),
        isNumber(coin.share) && " ",
        symbol(coin),
        " ",
        el("small", { class: "mute" }, `${exact(coin.amount)}`),
      ),
      el("span", { class: "right" }, isNumber(coin.value) ? valued(coin.value) : "no price"),
      el("span", { class: "right mute" }, isNumber(coin.share) ? part(coin.share) : "–"),
    ],
    "li",
  );
  show("allocation-more", rows.length < allocation.length);
  show("allocation-empty", !allocation.length);
  const box = $("allocation-bar");
  show(
    "allocation-bar",
    allocation.some((coin) => coin.share > 0),
  );
  box.setAttribute("viewBox", "0 0 1000 14");
  box.setAttribute("preserveAspectRatio", "none");
  let at = 0;
  box.replaceChildren(
    ...allocation
      .filter((coin) => coin.share > 0)
      .map((coin, i) => {
        const piece = draw("rect", {
          x: (at * 1000).toFixed(2),
          y: -2,
          width: (coin.share * 1000).toFixed(2),
          height: 18,
          class: shade(i),
        });
        at += coin.share;
        return piece;
      }),
  );
}

function renderAccounts() {
  const { accounts } = folio.whole;
  list(
    "accounts-list",
    [["Account"], ["Value", "right"], ["Looked up", "right"], ["", "right"]],
    accounts.map((account) => {
      const [title] = KINDS[account.kind] || [account.kind];
      const chains = (account.chains || []).map(chainName).join(", ");
      const old = account.checked_age_s > OLD_BALANCE;
      const never = account.trouble ? "never" : "not yet";
      return [
        account.id,
        {
          text: account.name,
          title: account.address,
          small: [title, account.address && short(account.address), chains].filter(Boolean).join(" · "),
        },
        {
          text: valued(account.value.amount),
          small: [
            account.pending && `the next block would pay ${exact(account.pending)} BTC`,
            account.value.unpriced && `${whole.format(account.value.unpriced)} without a price`,
          ]
            .filter(Boolean)
            .join(" · "),
        },
        {
          text: isNumber(account.checked_age_s) ? `${span(account.checked_age_s)} ago` : never,
          dot: account.trouble ? "trouble" : old || !account.checked ? "waiting" : "",
          small: account.trouble && sentence(account.trouble),
          bad: account.trouble,
        },
        { button: "Remove", label: `Remove ${account.name}`, act: () => removeAccount(account) },
      ];
    }),
  );
  show("accounts-list", accounts.length > 0);
  show("accounts-empty", !accounts.length);
  if (!accounts.length && !folio.offered) {
    folio.offered = true;
    $("account-box").open = true;
  }
}

function renderHoldings() {
  const names = new Map(folio.whole.accounts.map((account) => [account.id, account.name]));
  const all = [...folio.holdings.list].sort((a, b) => (b.value ?? -1) - (a.value ?? -1));
  const rows = folio.everything.has("holdings") ? all : all.slice(0, ROWS);
  list(
    "holdings-list",
    [["Asset"], ["Where"], ["Amount", "right"], ["Price", "right"], ["Value", "right"]],
    rows.map((holding) => {
      const old = holding.price_age_s > OLD_PRICE;
      const row = [
        `${holding.account} ${holding.place} ${holding.asset}`,
        { text: symbol(holding), small: holding.name !== holding.symbol ? holding.name : "", title: holding.asset },
        { text: names.get(holding.account) ?? "–", small: placeName(holding.place) },
        { text: exact(holding.amount), title: holding.amount },
        {
          text: isNumber(holding.price) ? valued(holding.price) : "no price",
          small: old ? `${span(holding.price_age_s)} old` : "",
          title: holding.price_at ? moment(holding.price_at) : "",
        },
        { text: valued(holding.value), small: holding.counted ? "" : "counted at its address already" },
      ];
      row.off = !holding.counted;
      return row;
    }),
  );
  show("holdings-list", all.length > 0);
  show("holdings-empty", !all.length);
  show("holdings-more", rows.length < all.length);
}

// ---- Value over time ----

const worth = { at: null, points: [], x: null };

function renderWorth() {
  const box = $("worth-chart");
  const width = box.clientWidth,
    height = box.clientHeight;
  for (const button of $("worth-spans").children) button.setAttribute("aria-pressed", String(button.dataset.days === String(days)));
  if (!folio.whole || !folio.history || !width) return;
  const { value } = folio.whole;
  // Days as they were, and this moment.
  const points = folio.history.currency === folio.whole.currency ? [...folio.history.points] : [];
  if (points.length && isNumber(value.amount) && value.complete) points.push([now(), value.amount]);
  worth.points = points;
  if (worth.at !== null && worth.at >= points.length) worth.at = null;
  const end = now();
  const begin = Math.max(end - days * 86400, Math.min(points.length ? points[0][0] : 0, end - 7 * 86400));
  const bottom = (worth.bottom = height - 18);
  const most = ceiling(Math.max(0, ...points.map(([, amount]) => amount || 0)));
  worth.x = (time) => ((time - begin) / (end - begin)) * width;
  worth.y = (amount) => bottom - (amount / most) * (bottom - 16);
  const kids = [];
  for (const amount of [most, most / 2, 0]) {
    const at = Math.round(worth.y(amount)) + 0.5;
    kids.push(draw("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }));
    if (amount && points.length) kids.push(draw("text", { x: 0, y: at - 4 }, valued(amount).replace(/\.00$/, "")));
  }
  // Where a value was not known, or the node did not run, there is no line.
  const runs = [];
  points.forEach(([time, amount], i) => {
    if (!isNumber(amount)) return;
    const before = i && points[i - 1];
    if (!before || !isNumber(before[1]) || time - before[0] > 2 * 86400) runs.push([]);
    runs[runs.length - 1].push([worth.x(time).toFixed(1), worth.y(amount).toFixed(1)]);
  });
  for (const run of runs) {
    const [a, b] = [run[0], run[run.length - 1]];
    if (run.length === 1) kids.push(draw("circle", { class: "spot", cx: a[0], cy: a[1], r: 3.5 }));
    else {
      kids.push(draw("path", { class: "area", d: `M${a[0]},${bottom}L${run.join("L")}L${b[0]},${bottom}Z` }));
      kids.push(draw("path", { class: "own", d: `M${run.join("L")}` }));
    }
  }
  const ticks = width < 500 ? 3 : 5;
  const far = end - begin > 300 * 86400 ? { month: "short", year: "numeric" } : { day: "numeric", month: "short" };
  for (let i = 0; i < ticks; i += 1) {
    const time = begin + ((i + 0.5) / ticks) * (end - begin);
    const at = { x: worth.x(time).toFixed(0), y: height - 4, "text-anchor": "middle" };
    kids.push(draw("text", at, new Date(time * 1000).toLocaleDateString([], far)));
  }
  worth.layer = draw("g");
  box.setAttribute("viewBox", `0 0 ${width} ${height}`);
  box.replaceChildren(...kids, worth.layer);
  renderRead();
}

/** The value under the pointer; without one how it has changed. */
function renderRead() {
  const { points, layer } = worth;
  if (!layer) return;
  layer.replaceChildren();
  const bold = (text) => el("b", {}, text);
  const said = $("worth-readout");
  const point = worth.at === null ? null : points[worth.at];
  if (point) {
    const x = worth.x(point[0]).toFixed(1);
    layer.append(draw("line", { class: "cursor", x1: x, x2: x, y1: 8, y2: worth.bottom }));
    if (isNumber(point[1])) layer.append(draw("circle", { class: "spot", cx: x, cy: worth.y(point[1]).toFixed(1), r: 4.5 }));
    const day = new Date(point[0] * 1000).toLocaleDateString([], { dateStyle: "medium" });
    said.replaceChildren(`${day}: `, isNumber(point[1]) ? bold(valued(point[1])) : "not known");
    return;
  }
  const known = points.filter(([, amount]) => isNumber(amount));
  if (known.length < 2) put(said, "Drawn from one value a day, taken at midnight UTC");
  else {
    const [first, last] = [known[0], known[known.length - 1]];
    const by = last[1] - first[1];
    const since = new Date(first[0] * 1000).toLocaleDateString([], { dateStyle: "medium" });
    const rise = first[1] > 0 ? ` (${by < 0 ? "−" : "+"}${((Math.abs(by) / first[1]) * 100).toFixed(1)} %)` : "";
    said.replaceChildren(bold(`${by < 0 ? "−" : "+"}${valued(Math.abs(by))}${rise}`), ` since ${since}`);
  }
  $("worth-chart").setAttribute("aria-label", `Value over time. ${said.textContent}. Arrow keys read single values.`);
}

// ---- What the visitor does ----

/** Another portfolio, or none. What was shown of the one before goes at once. */
function visit(id) {
  Object.assign(folio, { id, whole: null, holdings: null, history: null });
  if (id !== null) remember("sessionStorage", "portfolio", String(id));
  clear();
}

function changeCurrency(code) {
  currency = code;
  remember("localStorage", "currency", code);
  folio.history = null;
  soon(["portfolio", "worth"]);
}

/** Nothing of a portfolio is left on the page. */
function clear() {
  show("portfolio-whole", false);
  worth.points = [];
  for (const id of ["worth", "worth-note", "worth-doubts", "worth-readout", "worth-chart", "allocation", "allocation-bar"])
    $(id).replaceChildren();
  for (const id of ["accounts-list", "holdings-list"]) $(id).replaceChildren();
  $("account-form").reset();
  tell("account-said", "");
  for (const said of ["portfolio-said", "portfolio-ill"]) tell(said, "");
}

/** Another token, or none: nothing of the one before stays. */
function forget() {
  folio = nothing(folio.turn + 1);
  clear();
  for (const id of ["portfolio-choice", "portfolio-who"]) $(id).replaceChildren();
  $("portfolio-form").reset();
  tell("portfolio-why", "");
  if ($("sure").open) $("sure").close("");
  renderPortfolios();
}

/** Asks before something is gone. */
function sure(text, act) {
  put("sure-text", text);
  const box = $("sure");
  box.returnValue = "";
  box.onclose = () => box.returnValue === "yes" && act();
  box.showModal();
  $("sure-no").focus();
}

/** Changes something; what the node says to it is told at `where`. Returns whether it is done. */
async function alter(where, method, path, body, done) {
  const { turn } = folio;
  let failed = null;
  try {
    await ask(path, { method, body, signed: true });
  } catch (error) {
    failed = error;
  }
  // A token that is no longer good says so itself.
  if (failed && failed.status === 401) signedOut(failed);
  if (turn !== folio.turn) return false;
  tell(where, failed ? `${sentence(failed.message)}.`.replace(/\.\.$/, ".") : done);
  $(where).classList.toggle("bad", Boolean(failed));
  soon(["portfolio"]);
  return !failed;
}

function removeAccount({ id, name }) {
  const path = `/api/v1/portfolios/${folio.id}/accounts/${id}`;
  sure(`Remove the account “${name}” and what is known of its holdings? Nothing at its address changes.`, async () => {
    if (await alter("portfolio-said", "DELETE", path, null, `The account “${name}” is removed.`)) $("portfolio-h").focus();
  });
}

function removePortfolio() {
  const { id, name, accounts } = folio.list.portfolios.find((one) => one.id === folio.id);
  const more = accounts ? `, its ${count(accounts, "account")},` : "";
  sure(`Remove the portfolio “${name}”${more} and its history? This cannot be undone.`, async () => {
    if (await alter("portfolio-said", "DELETE", `/api/v1/portfolios/${id}`, null, `The portfolio “${name}” is removed.`)) {
      $("portfolio-h").focus();
    }
  });
}

async function addPortfolio() {
  const name = $("portfolio-name").value.trim();
  const done = `The portfolio “${name}” is there: choose it above.`;
  if (await alter("portfolio-said", "POST", "/api/v1/portfolios", { name }, done)) $("portfolio-form").reset();
}

async function addAccount() {
  const [title] = KINDS[kind];
  const name = $("account-name").value.trim() || title;
  const body = { kind, name };
  if (kind === "okx") {
    for (const part of SECRETS) body[part] = $(`account-${part}`).value;
  } else body.address = $("account-address").value.trim();
  if (kind === "evm") body.chains = [...$("chains").querySelectorAll("input:checked")].map((box) => box.value);
  // What is secret does not stay on the page, whatever comes of it.
  wipe();
  if (kind === "evm" && !body.chains.length) return tell("account-said", "Choose one chain at least.");
  $("account-set").disabled = true;
  const done = `“${name}” is added. What is there comes within a minute or two.`;
  const path = `/api/v1/portfolios/${folio.id}/accounts`;
  if (await alter("account-said", "POST", path, body, done)) $("account-form").reset();
  $("account-set").disabled = false;
}

function wipe() {
  for (const part of SECRETS) $(`account-${part}`).value = "";
}

/** The fields of a kind of account. */
function chooseKind(name) {
  kind = name;
  wipe();
  const [, example, note] = KINDS[kind];
  put("kind-note", note);
  $("account-address").placeholder = example;
  $("account-name").placeholder = KINDS[kind][0];
  for (const button of $("kinds").children) button.setAttribute("aria-pressed", String(button.dataset.kind === kind));
  for (const part of $("account-form").querySelectorAll("[data-kinds]")) {
    const used = part.dataset.kinds.split(" ").includes(kind);
    part.hidden = !used;
    // What is not shown is neither asked for nor sent.
    for (const input of part.querySelectorAll("input")) input.disabled = !used;
  }
  tell("account-said", "");
}

function wirePortfolio() {
  const act = (id, name, does) => $(id).addEventListener(name, does);
  const form = (id, does) =>
    act(id, "submit", (event) => {
      event.preventDefault();
      does();
    });
  for (const [name, [title]] of Object.entries(KINDS))
    $("kinds").append(el("button", { type: "button", "data-kind": name, onclick: () => chooseKind(name) }, title));
  for (const name of CHAINS)
    $("chains").append(el("label", {}, el("input", { type: "checkbox", value: name, checked: "" }), ` ${chainName(name)}`));
  chooseKind("bitcoin");
  form("account-form", addAccount);
  form("portfolio-form", addPortfolio);
  act("portfolio-remove", "click", removePortfolio);
  act("portfolio-choice", "change", () => {
    visit(Number($("portfolio-choice").value));
    soon(["portfolio", "worth"]);
  });
  act("currency", "change", () => changeCurrency($("currency").value));
  act("sure-no", "click", () => $("sure").close(""));
  act("sure-yes", "click", () => $("sure").close("yes"));
  act("worth-spans", "click", (event) => {
    if (!event.target.dataset.days) return;
    days = Number(event.target.dataset.days);
    remember("localStorage", "days", String(days));
    worth.at = null;
    renderWorth();
    soon(["worth"]);
  });
  for (const name of ["allocation", "holdings"])
    act(`${name}-more`, "click", () => {
      folio.everything.add(name);
      renderWhole();
    });
  readable($("worth-chart"), worth, renderRead, $("worth-readout"));
  document.addEventListener("token", forget);
  // A browser that goes back to a page shows it as it was left.
  window.addEventListener("pagehide", wipe);
  window.addEventListener("resize", renderWorth);
}

wirePortfolio();
plan();
