// The page's charts, drawn as SVG from the JSON of #drawn (recipe/report/charts.py makes it).
"use strict";
const drawn = JSON.parse(document.getElementById("drawn").textContent);
const shown = new Set(drawn.arms.keys());
const buttons = [...document.querySelectorAll(".arms button")];
const bandsBox = document.getElementById("bands"), smoothBox = document.getElementById("smooth");
const colour = arm => `var(--c${drawn.arms[arm].colour})`;
let focus = null;

function add(parent, name, attributes = {}, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}
function ticks(low, high, count) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * 0.999);
  const positions = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) positions.push(i * step);
  return positions;
}
function label(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-3 ? value.toExponential(1).replace("e+", "e") : String(+value.toPrecision(4));
}
function range(values) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (v !== null) { if (v < low) low = v; if (v > high) high = v; }
  if (low > high) return [0, 1];
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - pad, high + pad];
}
// running mean over the points that are there and at most `half` steps away
function smoothed(x, column, half) {
  const at = [...column.keys()].filter(i => column[i] !== null), out = column.slice();
  let first = 0, next = 0, sum = 0;
  for (const i of at) {
    while (next < at.length && x[at[next]] <= x[i] + half) sum += column[at[next++]];
    while (x[at[first]] < x[i] - half) sum -= column[at[first++]];
    out[i] = sum / (next - first);
  }
  return out;
}
function clear(figure) {
  figure.querySelector(":scope > svg")?.remove();  // a tip has small ones of its own
  figure.querySelector(".tip")?.remove();
}
function frame(figure, height, xs, ys, xLabels, xUnit) {
  clear(figure);
  const width = figure.clientWidth - 20, left = 46, right = 10, top = 6, bottom = xUnit ? 34 : 22;
  const svg = add(figure, "svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": figure.dataset.title});
  const x = v => left + (v - xs[0]) / (xs[1] - xs[0] || 1) * (width - left - right);
  const y = v => height - bottom - (v - ys[0]) / (ys[1] - ys[0] || 1) * (height - top - bottom);
  for (const t of ticks(ys[0], ys[1], 5)) {
    add(svg, "line", {class: "grid", x1: left, x2: width - right, y1: y(t), y2: y(t)});
    add(svg, "text", {x: left - 6, y: y(t) + 4, "text-anchor": "end"}, label(t));
  }
  for (const [v, text] of xLabels ?? ticks(xs[0], xs[1], 5).map(t => [t, label(t)]))
    add(svg, "text", {x: x(v), y: height - bottom + 16, "text-anchor": "middle"}, text);
  if (xUnit) add(svg, "text", {x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle"}, xUnit);
  return {svg, x, y, width, height, left, right, top, bottom};
}
function tip(figure, at, title, rows, place) {
  figure.querySelector(".tip")?.remove();
  if (!rows.length) return;
  const box = figure.appendChild(document.createElement("div"));
  box.className = "tip";
  box.append(title);
  for (const [arm, text] of rows) {
    const row = box.appendChild(document.createElement("div"));
    row.append(buttons[arm].querySelector("svg").cloneNode(true));
    row.appendChild(document.createElement("span")).textContent = drawn.arms[arm].label;
    row.append(text);
  }
  const room = figure.clientWidth - box.offsetWidth - 4;
  box.style.left = Math.max(4, Math.min(room, at + 70 + box.offsetWidth > figure.clientWidth ? at - box.offsetWidth : at + 70)) + "px";
  box.style.top = (place === undefined ? 44 : place + 44) + "px";
}
const isBaseline = l => drawn.arms[l.arm].colour === 0;
// a line with its band: thin and pale after the last step that all of its seeds have logged
function drawLine(parent, l, position, x, y, dash) {
  const path = points => points.map(([i, v], j) => `${j ? "L" : "M"}${x(position[i]).toFixed(1)} ${y(v).toFixed(1)}`).join("");
  const there = [...l.mean.keys()].filter(i => l.mean[i] !== null);
  const outline = [...there.map(i => [i, l.high[i]]), ...there.map(i => [i, l.low[i]]).reverse()];
  add(parent, "path", {class: "band", "data-arm": l.arm, d: path(outline) + "Z", style: `fill:${colour(l.arm)}`});
  const most = Math.max(...l.n), last = there.filter(i => l.n[i] === most).at(-1);
  const common = {"data-arm": l.arm, style: `stroke:${colour(l.arm)};stroke-dasharray:${dash && drawn.arms[l.arm].dash || "none"}`};
  add(parent, "path", {...common, class: "mean" + (isBaseline(l) ? " arm0" : ""), d: path(there.filter(i => i <= last).map(i => [i, l.mean[i]]))});
  add(parent, "path", {...common, class: "mean fewer", d: path(there.filter(i => i >= last).map(i => [i, l.mean[i]]))});
  if (there.length === 1)
    add(parent, "circle", {"data-arm": l.arm, cx: x(position[last]), cy: y(l.mean[last]), r: 3.5, style: `fill:${colour(l.arm)}`});
}
// a guide at the point next to the pointer, and a box with the values there
function follow(figure, svg, area, chart, lines, position, x, place) {
  const guide = add(svg, "line", {class: "grid", y1: area.top, y2: area.bottom, visibility: "hidden"});
  area.node.onpointermove = area.node.onpointerdown = event => {
    const at = event.clientX - svg.getBoundingClientRect().left;
    let near = 0;
    position.forEach((p, i) => { if (Math.abs(x(p) - at) < Math.abs(x(position[near]) - at)) near = i; });
    guide.setAttribute("x1", x(position[near])); guide.setAttribute("x2", x(position[near]));
    guide.setAttribute("visibility", "visible");
    const rows = lines.filter(l => l.mean[near] !== null).sort((a, b) => b.mean[near] - a.mean[near])
      .map(l => [l.arm, `${label(l.mean[near])}  [${label(l.low[near])}, ${label(l.high[near])}]`]);
    tip(figure, x(position[near]) - 40, `${chart.log ? "k" : "step"} ${chart.x[near]}`, rows, place);
  };
  area.node.onpointerleave = () => { guide.setAttribute("visibility", "hidden"); tip(figure, 0, "", []); };
}
function drawLines(figure, chart) {
  const smooth = column => chart.log ? column : smoothed(chart.x, column, (smoothBox.value - 1) / 2);
  const position = chart.log ? chart.x.map(Math.log2) : chart.x;
  const lines = chart.lines.filter(l => shown.has(l.arm)).map(l =>
    ({...l, mean: smooth(l.mean), low: smooth(l.low), high: smooth(l.high)}));
  const many = lines.length > drawn.one_panel;
  figure.classList.toggle("wide", many);
  const ys = range(lines.flatMap(l => bandsBox.checked ? [...l.low, ...l.high] : l.mean).concat(chart.zero ? 0 : []));
  const low = Math.min(...position), high = Math.max(...position);
  const xs = low < high ? [low, high] : [low - 1, low + 1];
  (many ? drawPanels : drawOnePanel)(figure, chart, lines, position, xs, ys);
}
function drawOnePanel(figure, chart, lines, position, xs, ys) {
  const f = frame(figure, 240, xs, ys, chart.log ? chart.x.map((v, i) => [position[i], v]) : null, chart.log ? "k" : "step");
  if (chart.zero) add(f.svg, "line", {class: "zero", x1: f.left, x2: f.width - f.right, y1: f.y(0), y2: f.y(0)});
  // the baseline last, on top
  for (const l of lines.sort((a, b) => isBaseline(a) - isBaseline(b))) drawLine(f.svg, l, position, f.x, f.y, true);
  follow(figure, f.svg, {node: f.svg, top: f.top, bottom: f.height - f.bottom}, chart, lines, position, f.x);
}
// a panel per method, with the baseline in each: beyond a few, lines and bands hide each other
function drawPanels(figure, chart, lines, position, xs, ys) {
  clear(figure);
  const baseline = lines.filter(isBaseline), others = lines.filter(l => !isBaseline(l));
  const width = figure.clientWidth - 20, left = 42, gap = 12, head = 20, tall = 84, foot = 18;
  const columns = Math.max(1, Math.min(others.length, Math.floor((width - left) / 175)));
  const wide = (width - left - (columns - 1) * gap) / columns, rows = Math.ceil(others.length / columns);
  const height = rows * (head + tall) + foot;
  const svg = add(figure, "svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": chart.title});
  others.forEach((l, i) => {
    const x0 = left + i % columns * (wide + gap), y0 = Math.floor(i / columns) * (head + tall) + head;
    const x = v => x0 + (v - xs[0]) / (xs[1] - xs[0]) * wide;
    const y = v => y0 + tall - 6 - (v - ys[0]) / (ys[1] - ys[0] || 1) * (tall - 6);
    const panel = add(svg, "g", {class: "panel"});
    add(panel, "rect", {x: x0, y: y0 - head, width: wide, height: head + tall});
    for (const t of ticks(ys[0], ys[1], 3)) {
      add(panel, "line", {class: "grid", x1: x0, x2: x0 + wide, y1: y(t), y2: y(t)});
      if (i % columns === 0) add(panel, "text", {x: x0 - 6, y: y(t) + 4, "text-anchor": "end"}, label(t));
    }
    if (chart.zero) add(panel, "line", {class: "zero", x1: x0, x2: x0 + wide, y1: y(0), y2: y(0)});
    for (const drawnLine of [...baseline, l]) drawLine(panel, drawnLine, position, x, y, false);
    const value = add(panel, "text", {x: x0 + wide, y: y0 - 5, "text-anchor": "end"}, label(l.mean.findLast(v => v !== null)));
    const name = add(panel, "text", {class: "name", "data-arm": l.arm, x: x0, y: y0 - 5}, drawn.arms[l.arm].label);
    shorten(name, wide - value.getComputedTextLength() - 8);
    if (i + columns >= others.length)
      for (const [v, anchor] of [[chart.x[0], "start"], [chart.x.at(-1), "end"]])
        add(panel, "text", {x: anchor === "start" ? x0 : x0 + wide, y: y0 + tall + 12, "text-anchor": anchor}, `${chart.log ? "k" : "step"} ${label(v)}`);
    follow(figure, svg, {node: panel, top: y0, bottom: y0 + tall - 6}, chart, [...baseline, l], position, x, y0 + tall);
  });
}
// cuts a text to a width, with … at its end
function shorten(text, room) {
  const whole = text.textContent;
  for (let n = whole.length; n > 1 && text.getComputedTextLength() > room; n--) text.textContent = whole.slice(0, n - 1) + "…";
}
function drawIntervals(figure, chart) {
  const rows = chart.rows.filter(r => shown.has(r.arm)), gap = 34;
  const xs = range([0, ...rows.flatMap(r => [r.low, r.high])]);
  const f = frame(figure, rows.length * gap + 34, xs, [0, rows.length || 1]);
  f.svg.querySelectorAll(".grid, text[text-anchor=end]").forEach(n => n.remove());
  add(f.svg, "line", {class: "zero", x1: f.x(0), x2: f.x(0), y1: f.top, y2: f.height - f.bottom});
  rows.forEach((r, i) => {
    const y = f.top + i * gap + 25, style = `stroke:${colour(r.arm)};fill:${colour(r.arm)}`;
    const g = add(f.svg, "g", {"data-arm": r.arm});
    const sign = v => (v < 0 ? "" : "+") + v.toFixed(3);
    const name = add(g, "text", {x: 0, y: y - 12, style: "fill:var(--ink)"}, drawn.arms[r.arm].label);
    const value = add(g, "text", {x: f.width, y: y - 12, "text-anchor": "end", style: "fill:var(--quiet)"},
      `${sign(r.mean)} [${sign(r.low)}, ${sign(r.high)}]`);
    const room = f.width - value.getComputedTextLength() - 10;
    shorten(name, room);
    add(g, "line", {x1: f.x(r.low), x2: f.x(r.high), y1: y, y2: y, style, "stroke-width": 2.2, "stroke-dasharray": drawn.arms[r.arm].dash});
    add(g, "circle", {cx: f.x(r.mean), cy: y, r: 4, style});
  });
}
function drawScatter(figure, chart) {
  const points = chart.points.filter(p => shown.has(p.arm));
  const f = frame(figure, 280, range(points.map(p => p.x)), range(points.map(p => p.y)), null, "final entropy");
  const marks = [];
  for (const arm of new Set(points.map(p => p.arm))) {
    const runs = points.filter(p => p.arm === arm);
    const mean = key => runs.reduce((sum, p) => sum + p[key], 0) / runs.length;
    const g = add(f.svg, "g", {"data-arm": arm});
    // dashed: a hollow mark
    const style = `stroke:${colour(arm)};stroke-width:2;fill:${drawn.arms[arm].dash ? "var(--box)" : colour(arm)}`;
    for (const p of runs) add(add(g, "circle", {cx: f.x(p.x), cy: f.y(p.y), r: 2.5, style, opacity: .6}), "title", {}, `${drawn.arms[arm].label}, seed ${p.seed}: ${label(p.y)} at ${label(p.x)}`);
    add(add(g, "circle", {cx: f.x(mean("x")), cy: f.y(mean("y")), r: 5, style}), "title", {}, `${drawn.arms[arm].label}: ${label(mean("y"))} at ${label(mean("x"))}`);
    marks.push([arm, g, f.x(mean("x")), f.y(mean("y"))]);
  }
  // a label goes where it covers no mark and no other label, the baseline's first: beside its mark,
  // or farther off with a thin line to it, else it is left out
  const taken = marks.map(([, , x, y]) => [x - 6, x + 6, y - 6, y + 6]);
  const sides = [[1, 0], [-1, 0], [0, 1], [0, -1], [.7, .7], [-.7, .7], [.7, -.7], [-.7, -.7]];
  for (const [arm, g, x, y] of marks.sort((a, b) => (drawn.arms[a[0]].colour !== 0) - (drawn.arms[b[0]].colour !== 0))) {
    const text = add(g, "text", {}, drawn.arms[arm].label), w = text.getComputedTextLength();
    const spots = [9, 22, 36, 50, 70].flatMap(r => sides.map(([a, b]) =>
      [x + r * a + (a > 0 ? 0 : a < 0 ? -w : -w / 2), y + (r + 4) * b, r > 9]));
    const spot = spots.find(([a, b]) => a > f.left && a + w < f.width && b > 8 && b < f.height - f.bottom
      && taken.every(([l, r, t, u]) => a + w < l || a > r || b + 5 < t || b - 5 > u));
    if (!spot) { text.remove(); continue; }
    const [a, b, apart] = spot;
    text.setAttribute("x", a); text.setAttribute("y", b + 4);
    if (apart) add(g, "line", {class: "leader", x1: x, y1: y, x2: Math.max(a, Math.min(a + w, x)), y2: b + (b > y ? -6 : b < y ? 6 : 0)});
    taken.push([a, a + w, b - 5, b + 5]);
  }
}
const kinds = {line: drawLines, interval: drawIntervals, scatter: drawScatter};
const figures = drawn.charts.map((chart, i) => {
  const parent = document.getElementById(i < drawn.curves ? "curves" : "finals");
  const figure = parent.appendChild(document.createElement("figure"));
  const caption = figure.appendChild(document.createElement("figcaption"));
  caption.textContent = figure.dataset.title = chart.title;
  caption.appendChild(document.createElement("span")).textContent = [chart.unit, chart.note].filter(Boolean).join("; ");
  return figure;
});
function draw() {
  document.body.classList.toggle("nobands", !bandsBox.checked);
  buttons.forEach((b, i) => b.setAttribute("aria-pressed", shown.has(i)));
  drawn.charts.forEach((chart, i) => kinds[chart.kind](figures[i], chart));
  point(focus);
}
function point(arm) {
  focus = arm !== null && shown.has(arm) ? arm : null;
  document.querySelectorAll("figure [data-arm]").forEach(node => {
    node.classList.toggle("dim", focus !== null && +node.dataset.arm !== focus);
    node.classList.toggle("focus", focus !== null && +node.dataset.arm === focus);
  });
}
buttons.forEach((button, arm) => {
  button.onclick = () => { shown.has(arm) ? shown.delete(arm) : shown.add(arm); draw(); };
  button.ondblclick = () => { shown.clear(); shown.add(arm); draw(); };
  button.onmouseenter = button.onfocus = () => point(arm);
  button.onmouseleave = button.onblur = () => point(null);
});
document.getElementById("all").onclick = () => { drawn.arms.forEach((_, i) => shown.add(i)); draw(); };
document.getElementById("none").onclick = () => { shown.clear(); draw(); };
bandsBox.onchange = smoothBox.onchange = draw;
let drawnWidth = 0;
new ResizeObserver(() => {
  if (document.body.clientWidth !== drawnWidth) { drawnWidth = document.body.clientWidth; draw(); }
}).observe(document.body);
