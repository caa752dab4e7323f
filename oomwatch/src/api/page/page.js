'use strict';
// All text comes from processes and containers: it is only ever set as textContent.
const KEPT = 1000, LISTED = 60, RANKED = 12, ROWS = 500;
const STATUS_MS = 10000, CONTAINERS_MS = 60000, DRAW_MS = 250;
const events = new Map(); // By number; the daemon counts its events from 1.
let containers = [], status = null, drawing = 0, fresh = false;

const at = (id) => document.getElementById(id);
function make(tag, classes, text, ...children) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}
function bytes(number) {
  if (number === null || number === undefined) return '?';
  let value = number / 1024, unit = 'KiB';
  for (const next of ['MiB', 'GiB', 'TiB', 'PiB']) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return (value >= 100 || value % 1 < .05 ? value.toFixed(0) : value.toFixed(1)) + ' ' + unit;
}
function duration(seconds) {
  if (seconds < 120) return seconds + ' s';
  if (seconds < 7200) return Math.floor(seconds / 60) + ' min';
  if (seconds < 172800) return Math.floor(seconds / 3600) + ' h';
  return Math.floor(seconds / 86400) + ' d';
}
const short = (id) => /^[0-9a-f]{64}$/.test(id) ? id.slice(0, 12) : id;
const clock = (time) => new Date(time).toLocaleString(undefined, { dateStyle: 'short', timeStyle: 'medium' });
function owner(container) {
  if (!container) return '(no container)';
  const name = container.name || short(container.id);
  return container.namespace && container.pod ? container.namespace + '/' + container.pod + '/' + name : name;
}

function take(event) {
  if (event.supersedes !== null) events.delete(event.supersedes);
  events.set(event.seq, event);
  while (events.size > KEPT) events.delete(events.keys().next().value);
  fresh = true;
  draw();
}
// A storm is drawn, and its numbers are asked for, a few times a second and not for each kill.
function draw() {
  if (!drawing) drawing = setTimeout(() => { drawing = 0; drawAll(); }, DRAW_MS);
}
function drawAll() {
  if (fresh) askStatus();
  fresh = false;
  const sorted = [...events.values()].sort((a, b) => a.boottime_ns - b.boottime_ns || a.seq - b.seq);
  drawNumbers();
  drawLine(sorted);
  drawTotals('namespaces', sorted, (event) => event.container && event.container.namespace || '(no namespace)');
  drawTotals('names', sorted, (event) => owner(event.container));
  drawEvents(sorted);
}
function drawNumbers() {
  if (!status) return;
  at('node').textContent = status.node || '';
  const lost = status.lost.ring + status.lost.decode + status.lost.queue + status.lost.publisher + status.lost.store;
  const numbers = [
    ['kills', status.kills + status.counter_only, 'kills'], ['containers', status.containers],
    ['cgroups', status.cgroups], ['tier', status.tier], ['residual', status.residual, 'bad'],
    ['lost', lost, 'bad'], ['up', duration(status.uptime_seconds)],
  ];
  at('numbers').replaceChildren(...numbers.map(([label, value, kind]) =>
    make('div', kind && value ? 'bad' : '', null, make('b', '', value), make('span', '', label))));
}
function drawLine(sorted) {
  const line = at('line'), space = 'http://www.w3.org/2000/svg', width = 1000, height = 64;
  const times = sorted.map((event) => Date.parse(event.time));
  const to = Date.now(), from = Math.min(to - 60000, ...times);
  const part = (tag, attributes) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  line.setAttribute('viewBox', `0 0 ${width} ${height}`);
  line.setAttribute('preserveAspectRatio', 'none');
  const marks = sorted.map((event, index) => {
    const x = 8 + (times[index] - from) / (to - from) * (width - 16);
    // Neighbours are set apart, so that a burst shows as one.
    const y = 12 + index * 17 % (height - 24);
    const mark = part('ellipse', { cx: x.toFixed(1), cy: y, rx: 5 * width / (line.clientWidth || width), ry: 5 });
    mark.setAttribute('class', event.kind);
    const title = part('title', {});
    title.textContent = event.text;
    mark.append(title);
    return mark;
  });
  line.replaceChildren(part('line', { x1: 0, x2: width, y1: height - 1, y2: height - 1 }), ...marks);
  at('from').textContent = clock(from);
  at('to').textContent = 'now';
}
function drawTotals(id, sorted, key) {
  const totals = new Map();
  for (const event of sorted) {
    if (event.count) totals.set(key(event), (totals.get(key(event)) || 0) + event.count);
  }
  const ranked = [...totals].sort((a, b) => b[1] - a[1]);
  const rows = ranked.slice(0, RANKED).map(([name, count]) => {
    const bar = make('i');
    bar.style.width = 100 * count / ranked[0][1] + '%';
    return make('li', 'row', null, bar, make('span', '', name), make('b', '', count));
  });
  if (ranked.length > RANKED) rows.push(make('li', 'none', `and ${ranked.length - RANKED} more`));
  at(id).replaceChildren(...rows.length ? rows : [make('li', 'none', 'no kills')]);
}
const LIMITS = {
  container: 'its own limit', pod: "the pod's limit", ancestor: 'a limit further up',
  cgroup: "the cgroup's limit", node: "the node's memory", unknown: 'a limit',
};
// Letters that are written from right to left turn nothing around beside their own name.
const task = (task) => make('bdi', '', `${task.comm || '?'}[${task.pid === null ? '?' : task.pid}]`);
function why(event) {
  if (event.kind === 'counter_only') {
    const down = event.while_down ? ', while no daemon ran' : '';
    return [`${event.count} lost; only the kernel's counter tells of it${down}`];
  }
  const verb = event.kind === 'already_exiting' ? 'was losing ' : 'lost ';
  const other = event.trigger.pid !== null && event.trigger.pid !== event.victim.pid;
  const by = other ? [' by ', task(event.trigger)] : [];
  return [verb, task(event.victim), `: ${LIMITS[event.scope] || 'a limit'} was hit`, ...by];
}
function usage(event) {
  const { max_bytes: max, usage_bytes: used } = event.limit;
  const box = make('div', 'use');
  if (max === null) return box;
  if (used !== null) {
    const fill = make('i');
    fill.style.width = Math.min(100, max ? 100 * used / max : 100) + '%';
    box.append(make('div', 'meter', null, fill));
  }
  const anon = event.victim.anon_rss_bytes === null ? '' : `, victim ${bytes(event.victim.anon_rss_bytes)}`;
  box.append(used === null ? `limit ${bytes(max)}${anon}` : `${bytes(used)} of ${bytes(max)}${anon}`);
  return box;
}
function drawEvents(sorted) {
  const rows = sorted.slice(-LISTED).reverse().map((event) => {
    const when = make('div', '', null, make('time', '', clock(event.time)), make('span', 'kind ' + event.kind, event.kind.replace('_', ' ')));
    const what = make('div', '', null, make('div', 'name', owner(event.container)), make('div', 'why', null, ...why(event)));
    if (event.victim.cgroup_path) what.append(make('div', 'path', event.victim.cgroup_path));
    return make('li', '', null, when, what, usage(event));
  });
  at('events').replaceChildren(...rows.length ? rows : [make('li', 'none', 'No OOM kill since oomwatch was started.')]);
}
function drawContainers() {
  const wanted = at('filter').value.toLowerCase();
  const has = (text) => text && text.toLowerCase().includes(wanted);
  const found = containers.filter((one) => !wanted || [one.id, one.name, one.pod, one.namespace, one.cgroup_path].some(has));
  found.sort((a, b) => b.kills + b.counter_only - a.kills - a.counter_only);
  at('watched').textContent = containers.length === 1 ? '1 container' : `${containers.length} containers`;
  const rows = found.slice(0, ROWS).map((one) => make('tr', '', null,
    make('td', '', one.pod ? `${one.pod}/${one.name || short(one.id)}` : one.name || short(one.id)),
    make('td', 'wide', one.namespace), make('td', 'wide path', one.cgroup_path), make('td', '', one.kills === null ? '?' : one.kills + one.counter_only)));
  if (found.length > ROWS) rows.push(make('tr', '', null, make('td', 'none', `and ${found.length - ROWS} more: filter them`)));
  if (!found.length) rows.push(make('tr', '', null, make('td', 'none', wanted ? 'None is named like that.' : 'No containers are registered.')));
  at('containers').replaceChildren(...rows);
}

async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
function live(state, words) {
  at('live').className = state;
  at('live').textContent = words;
}
// A daemon that does not answer shows by its stream.
const quietly = (work) => work().catch(() => {});
const askStatus = () => quietly(async () => {
  const before = status;
  status = await ask('/v1/status');
  drawNumbers();
  // Another daemon counts anew.
  if (before && status.uptime_seconds < before.uptime_seconds) {
    events.clear();
    askEvents();
  }
});
const askContainers = () => quietly(async () => { containers = (await ask('/v1/containers')).containers; drawContainers(); });
const askEvents = () => quietly(async () => { (await ask('/v1/events?limit=' + KEPT)).events.forEach(take); draw(); });
function every(ms, work) {
  setInterval(() => { if (!document.hidden) work(); }, ms);
}

const stream = new EventSource('/v1/events/stream');
stream.addEventListener('open', () => { live('on', 'live'); askStatus(); askEvents(); });
stream.addEventListener('error', () => live('off', 'not connected'));
stream.addEventListener('oom', (message) => take(JSON.parse(message.data)));
stream.addEventListener('gap', (message) => {
  // What is still kept is told by the list; of another daemon, from its first event.
  if (JSON.parse(message.data).missed === null) events.clear();
  askEvents();
});
at('filter').addEventListener('input', drawContainers);
every(STATUS_MS, askStatus);
every(CONTAINERS_MS, askContainers);
every(30000, draw);
askStatus();
askContainers();
draw();
