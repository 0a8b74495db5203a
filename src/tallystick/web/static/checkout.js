// Keeps the customer's page true: listens to the invoice's stream and writes the view into the page.
//
// The server decides everything. This script shows what the newest view says, counts down, and copies. Without it the
// page works the same and refreshes itself. What is bound to what stands in the page, in data-* attributes.

const body = document.body;
const invoice = body.dataset.invoice;
const wanted = new URLSearchParams(location.search).get("option");
const byId = (id) => document.getElementById(id);
const LINKS = /^(https?|ethereum):/i;
const NOTCHES_MAX = 60;

let source = null;
let offlineTimer = 0;
// Each clock counts down to a moment that the newest view named; 0 is no moment.
const clocks = ["clock", "amount-clock", "amounts-clock"].map((id) => ({ face: byId(id), end: 0 }));
for (const one of clocks) {
  if (!one.face.parentElement.hidden) one.end = Date.now() + Number(one.face.dataset.seconds) * 1000;
}

// --- showing the view -------------------------------------------------------------------------------------------

const at = (scope, path) => path.split(".").reduce((value, key) => value?.[key], scope);

function write(element, text) {
  const next = text ?? "";
  if (element.textContent !== next) element.textContent = next; // an unchanged text is not announced again
}

function link(element, target) {
  if (typeof target === "string" && LINKS.test(target)) element.setAttribute("href", target);
  else element.removeAttribute("href");
}

function fill(root, scope) {
  for (const element of root.querySelectorAll("[data-text]")) write(element, at(scope, element.dataset.text));
  for (const element of root.querySelectorAll("[data-href]")) link(element, at(scope, element.dataset.href));
}

// One whose amount is being worked out anew stays chosen: the page says so instead of changing the coin.
function chosen(view) {
  const open = view.options.filter((option) => option.address !== null || option.requoting_text !== null);
  return open.find((o) => o.id === wanted) ?? open.find((o) => o.id === view.selected) ?? open[0] ?? null;
}

function showCode(view, option) {
  const code = byId("qr");
  if (!option?.uri) return code.removeAttribute("src");
  const path = `/i/${view.id}/options/${option.id}/qr.svg?v=${encodeURIComponent(option.amount)}`;
  if (code.getAttribute("src") !== path) code.setAttribute("src", path);
}

// One notch for each confirmation: cut when it came, marked when it is to come. The server draws the first one alike.
function showTally(progress) {
  const need = progress?.need ?? 0;
  const shown = Math.min(need, NOTCHES_MAX);
  const cut = need ? Math.floor((progress.have * shown) / need) : 0;
  let done = "";
  let todo = "";
  for (let place = 0; place < shown; place++) {
    const middle = ((place + 0.5) * 320) / shown;
    const half = Math.min(9, 320 / shown / 2.6);
    if (place < cut) done += `M${(middle - half).toFixed(1)} 0L${middle.toFixed(1)} 15L${(middle + half).toFixed(1)} 0Z`;
    else todo += `M${middle.toFixed(1)} 3V13`;
  }
  byId("tally").querySelector(".done").setAttribute("d", done);
  byId("tally").querySelector(".todo").setAttribute("d", todo);
}

// Payments and refunds look alike.
function list(id, items) {
  const rows = items.map((payment) => {
    const row = byId("payment").content.cloneNode(true);
    fill(row, { payment });
    return row;
  });
  byId(id).replaceChildren(...rows);
}

function setClocks(seconds) {
  clocks.forEach((one, place) => { one.end = seconds[place] === null ? 0 : Date.now() + seconds[place] * 1000; });
}

function show(view) {
  const pick = chosen(view);
  const option = pick?.address ? pick : null;
  // Where nothing can be paid before there are new amounts, the headline says it.
  const stale = option || view.situation === "requoting" ? null : pick;
  const scope = { ...view, option, stale };
  const focused = document.activeElement;
  body.dataset.phase = view.phase;
  byId("sign").setAttribute("href", `#sign-${view.phase}`);
  fill(body, scope);
  for (const part of body.querySelectorAll("[data-show]")) part.hidden = !view.shows.includes(part.dataset.show);
  for (const part of body.querySelectorAll("[data-if]")) part.hidden = !at(scope, part.dataset.if);
  for (const row of body.querySelectorAll("[data-option]")) row.hidden = row.dataset.option === option?.id;
  showCode(view, option);
  showTally(view.progress);
  list("payments", view.payments);
  list("refunds", view.refunds);
  document.title = `${view.headline} · ${view.merchant_name}`;
  setClocks([
    view.shows.includes("countdown") ? view.seconds_left : null,
    option?.quote_seconds_left ?? null,
    view.shows.includes("quotes") ? view.quote_seconds_left : null,
  ]);
  tick();
  // Whoever stood on something that is gone now is led to what happened instead.
  if (focused !== body && focused?.closest("[hidden]")) byId("headline").focus();
}

// --- the stream -------------------------------------------------------------------------------------------------

function online() {
  clearTimeout(offlineTimer);
  offlineTimer = 0;
  byId("offline").hidden = true;
}

function offline() {
  if (!offlineTimer) offlineTimer = setTimeout(() => { byId("offline").hidden = false; }, 8000);
  // The browser comes back by itself unless the answer was no stream at all.
  if (source.readyState === EventSource.CLOSED) setTimeout(listen, 3000 + Math.random() * 4000);
}

function listen() {
  source?.close();
  source = new EventSource(`/i/${invoice}/events`);
  source.addEventListener("open", online);
  source.addEventListener("error", offline);
  source.addEventListener("invoice", (event) => {
    online();
    show(JSON.parse(event.data));
    body.dataset.live = "yes";
  });
}

// --- the clock --------------------------------------------------------------------------------------------------

function clock(seconds) {
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(seconds / 3600);
  if (hours >= 48) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  const minutes = Math.floor((seconds % 3600) / 60);
  return hours ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

function tick() {
  for (const one of clocks.filter(({ end }) => end > 0)) {
    const left = Math.max(0, Math.ceil((one.end - Date.now()) / 1000));
    write(one.face, clock(left));
    if (left > 0) continue;
    one.end = 0;
    setTimeout(listen, 1000); // the server says what the end means
  }
}

// --- copying ----------------------------------------------------------------------------------------------------

async function copy(button) {
  const value = byId(button.dataset.copy);
  const label = button.dataset.label ?? (button.dataset.label = button.textContent);
  let done = false;
  try {
    await navigator.clipboard.writeText(value.textContent);
    done = true;
  } catch {
    getSelection().selectAllChildren(value); // no secure context, or refused: select it and use the old way
    done = document.execCommand("copy");
  }
  button.textContent = done ? button.dataset.done : button.dataset.failed;
  button.classList.toggle("done", done);
  write(byId("said"), `${button.getAttribute("aria-label")}: ${button.textContent}`);
  clearTimeout(button.timer);
  button.timer = setTimeout(() => {
    button.textContent = label;
    button.classList.remove("done");
    write(byId("said"), "");
  }, 2000);
}

for (const button of body.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
setInterval(tick, 1000);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => { if (event.persisted) listen(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) listen(); });
listen();
