"use strict";
// Shows the server's stream. Data of a store enters the page through textContent only.

const MOST = 200, RATES = 60, SILENCE = 6000, AGAIN = 2000;
const at = (id) => document.getElementById(id);
const changes = at("changes");
let source = null, server = null, last = 0, heard = 0, timer = null;
let before = null, rates = [], paused = false, kept = [];

// -- texts ----------------------------------------------------------------------------------------

const number = (value) => value === null || value === undefined ? "–" : value.toLocaleString("en-US");
const percent = (value) => value === null ? "–" : (100 * value).toFixed(1) + " %";
const precise = (value) => value >= 100 ? value.toFixed(0) : value.toPrecision(3);

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return precise(value * 1e6) + " µs";
  if (value < 1) return precise(value * 1e3) + " ms";
  if (value < 120) return value.toFixed(1) + " s";
  if (value < 7200) return (value / 60).toFixed(0) + " min";
  return value < 172800 ? (value / 3600).toFixed(0) + " h" : (value / 86400).toFixed(0) + " d";
}

function bytes(value) {
  if (value === null || value === undefined) return "";
  let unit = "B";
  for (const next of ["kB", "MB", "GB", "TB"]) {
    if (value < 1000) break;
    value /= 1000;
    unit = next;
  }
  return (unit === "B" ? value : precise(value)) + " " + unit;
}

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** Put texts into an element, those of arrays as bold. */
function say(place, ...parts) {
  place.replaceChildren(...parts.map((part) => Array.isArray(part) ? element("b", part[0]) : part));
}

/** Fill a table: rows of [text, class]; or one row that tells there are none. */
function fill(id, rows, none) {
  const body = at(id).tBodies[0], names = [...at(id).tHead.rows[0].cells].map((cell) => cell.textContent);
  body.replaceChildren(...rows.map((cells) => {
    const row = element("tr");
    row.append(...cells.map(([text, kind], place) => {
      const cell = element("td", text, kind);
      cell.dataset.name = names[place]; // shown beside the text on a narrow page
      return cell;
    }));
    return row;
  }));
  if (!rows.length) {
    const cell = element("td", none, "none");
    cell.colSpan = at(id).tHead.rows[0].cells.length;
    const row = element("tr");
    row.append(cell);
    body.append(row);
  }
}

// -- the state ------------------------------------------------------------------------------------

function show(state) {
  at("store").textContent = state.store;
  at("problem").hidden = !state.error;
  at("problem").textContent = state.error || "";
  if (!state.stats || !state.activity) return status(state.error ? "store not reached" : "live", state.error);
  status(state.info.closed ? "store closed" : "live", state.info.closed);
  at("keys").textContent = number(state.info.keys);
  at("revision").textContent = number(state.info.revision);
  at("pending").textContent = number(state.stats.events_pending);
  at("watches").textContent = number(state.stats.watches);
  at("snapshots").textContent = number(state.info.snapshots);
  at("errors").textContent = number(state.stats.listener_errors);
  at("errors").parentNode.classList.toggle("bad", state.stats.listener_errors > 0);
  showRate(state);
  showWriter(state.activity);
  showListeners(state.activity);
  fill("transactions", state.activity.transactions.map((each) => [
    [each.notes || "–", "wrap"], [number(each.number), "n"], [each.thread, "wrap"],
    [each.optimistic ? "optimistic" : "exclusive"], [seconds(each.seconds), each.seconds > 5 ? "n bad" : "n"],
  ]), "none");
  showCaches(state.caches);
  showQueues(state.queues);
}

function showRate(state) {
  const now = {time: state.time, commits: state.stats.commits};
  if (before && now.time > before.time) {
    rates.push(Math.max(0, (now.commits - before.commits) / (now.time - before.time)));
    rates = rates.slice(-RATES);
    const rate = rates[rates.length - 1], most = Math.max(1, ...rates);
    at("rate").textContent = rate >= 10 ? number(Math.round(rate)) : rate.toFixed(1);
    const points = rates.map((each, place) =>
      (120 - 2 * (rates.length - 1 - place)).toFixed(1) + "," + (30 - 28 * each / most).toFixed(1));
    at("spark").firstElementChild.setAttribute("points", points.join(" "));
  }
  before = now;
}

function showWriter(activity) {
  const writer = activity.writer;
  if (!writer) {
    say(at("writer"), "No transaction excludes other writers.");
  } else {
    const where = writer.host ? " of process " + writer.process + " on " + writer.host : " of process " + writer.process;
    say(at("writer"), ["thread " + writer.thread], where + " has excluded other writers for ",
      [seconds(writer.seconds)], ": ", [writer.purpose]);
  }
  at("writer").classList.toggle("warn", Boolean(writer) && writer.seconds > 5);
  at("waiting").hidden = !activity.waiting.length;
  fill("waiting", activity.waiting.map((each) => [
    [each.thread, "wrap"], [each.purpose, "wrap"], [seconds(each.seconds), each.seconds > 5 ? "n bad" : "n"],
  ]), "none");
  const crowd = activity.waiting_for_listeners;
  at("crowd").hidden = !crowd;
  at("crowd").textContent = crowd + (crowd === 1 ? " writer waits" : " writers wait") + " until listeners have caught up.";
}

function showListeners(activity) {
  const now = activity.listener;
  at("calling").hidden = !now || now.seconds < 0.5;
  if (now) say(at("calling"), [now.name], " has been called with " + now.event + (now.key === null ? "" : " of ") , [now.key === null ? "" : now.key],
    " for ", [seconds(now.seconds)]);
  fill("listeners", activity.listeners.map((each) => [
    [each.name, "wrap mono"], [number(each.calls), "n"], [seconds(each.seconds / each.calls), "n"],
    [seconds(each.longest), each.longest > 1 ? "n bad" : "n"], [number(each.errors), each.errors ? "n bad" : "n"],
  ]), "none was called since the page was opened");
}

function showCaches(caches) {
  at("caches-section").hidden = !caches.length;
  fill("caches", caches.map((each) => [
    [each.name, "wrap"],
    [number(each.entries) + (each.max_entries === null ? "" : " of " + number(each.max_entries)), "n"],
    [bytes(each.bytes) + (each.max_bytes === null ? "" : " of " + bytes(each.max_bytes)), "n"],
    [number(each.hits), "n"], [number(each.misses), "n"], [percent(each.hit_ratio), "n"],
    [number(each.loads) + (each.load_failures ? ", " + number(each.load_failures) + " failed" : ""),
      each.load_failures ? "n bad" : "n"],
    [number(Object.values(each.evictions).reduce((sum, count) => sum + count, 0)), "n"],
  ]), "none");
}

function showQueues(queues) {
  at("queues-section").hidden = !queues.length;
  fill("queues", queues.map((each) => [
    [each.name, "wrap"], [number(each.waiting), "n"], [number(each.delayed), "n"], [number(each.leased), "n"],
    [number(each.dead), each.dead ? "n bad" : "n"], [seconds(each.oldest_waiting), "n"],
  ]), "none");
}

// -- the changes ----------------------------------------------------------------------------------

function row(change) {
  const item = element("li");
  const time = change.time ? new Date(change.time * 1000).toLocaleTimeString("en-GB") : "";
  item.append(element("span", time, "time"));
  if (change.action === "gap") {
    item.append(element("span", "changes of revisions " + number(change.first) + " to " + number(change.last) + " are not shown", "gap"));
  } else if (change.action === "missed") {
    item.append(element("span", "earlier changes are not shown: this page was away, or too slow", "gap"));
  } else {
    item.append(
      element("span", change.action, change.action.split(" ")[0]), element("span", change.key, "key"),
      element("span", bytes(change.size), "size"), element("span", "r " + number(change.revision), "revision"),
      element("span", change.transaction || "", "transaction"), element("span", change.metadata, "metadata"));
    item.dataset.key = change.key;
    filter(item);
  }
  return item;
}

function filter(item) {
  const wanted = at("filter").value;
  item.hidden = Boolean(wanted) && "key" in item.dataset && !item.dataset.key.includes(wanted);
  item.style.display = item.hidden ? "none" : "";
}

function add(list) {
  for (const change of list) {
    if (change.number !== undefined) {
      if (change.number <= last) continue;
      last = change.number;
    }
    kept.push(change);
  }
  kept = kept.slice(-MOST);
  if (paused) {
    at("pause").textContent = kept.length ? "Go on (" + kept.length + " new)" : "Go on";
    return;
  }
  if (!kept.length) return;
  at("none").hidden = true;
  changes.prepend(...kept.reverse().map(row));
  kept = [];
  while (changes.childElementCount > MOST) changes.lastElementChild.remove();
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  at("pause").textContent = paused ? "Go on" : "Pause";
  add([]);
});
at("filter").addEventListener("input", () => [...changes.children].forEach(filter));

// -- the connection -------------------------------------------------------------------------------

function status(text, isBad) {
  at("status").textContent = text;
  at("status").className = "pill " + (isBad ? "lost" : "live");
  document.body.classList.remove("lost-connection");
}

function lost() {
  at("status").textContent = "disconnected, trying again …";
  at("status").className = "pill lost";
  document.body.classList.add("lost-connection");
}

function connect() {
  clearTimeout(timer);
  if (source) source.close();
  heard = Date.now();
  source = new EventSource("events");
  source.addEventListener("hello", (event) => {
    const name = JSON.parse(event.data).server;
    if (server !== null && server !== name) {
      changes.replaceChildren();
      rates = [];
      before = null;
    }
    if (server !== name) last = 0;
    server = name;
    heard = Date.now();
  });
  source.addEventListener("state", (event) => { heard = Date.now(); show(JSON.parse(event.data)); });
  source.addEventListener("changes", (event) => { heard = Date.now(); add(JSON.parse(event.data)); });
  source.addEventListener("error", () => {
    lost();
    source.close();
    timer = setTimeout(connect, AGAIN);
  });
}

// A connection may be dead without an error, for example after the machine has slept.
setInterval(() => { if (Date.now() - heard > SILENCE) { lost(); connect(); } }, 1000);
connect();
