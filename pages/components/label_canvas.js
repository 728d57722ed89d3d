// Boxes on a picture: drawn, moved, resized, given a kind, taken away; by mouse, finger or key. No library, no request.
// Coordinates are the picture's own pixels; the SVG scales them. Python hears of it once, when a person saves.
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#E2A93B", "#4FC3F7", "#F08A55", "#7CD992", "#CF8CC3", "#F4E04D", "#8C9BE0", "#FF8FA3", "#5CE0D0"];
const GRAB = 9;                                       // screen pixels about a corner or edge that take hold of it
const CURSORS = { "": "crosshair", in: "move", l: "ew-resize", r: "ew-resize", t: "ns-resize", b: "ns-resize",
                  lt: "nwse-resize", rb: "nwse-resize", rt: "nesw-resize", lb: "nesw-resize" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const SMALL = 1;                                      // picture pixels; a smaller box is a slip of the hand

const states = new WeakMap();                         // element -> what is drawn, kept while the page runs again around it
const drafts = new Map();                             // picture -> what was drawn on it and not saved: it was put off, and comes back
const DRAFTS = 100;

export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const root = parentElement.querySelector(".canvas");
  let s = states.get(parentElement);
  if (!s || s.id !== data.id) {
    const kept = s && s.kinds ? s.kinds.filter(k => !data.kinds.includes(k)) : [];
    s = { id: data.id, boxes: data.boxes.map(b => [...b]), undone: [], done: [], chosen: -1, kind: s && s.kind || "",
          kinds: [...data.kinds, ...kept], view: [0, 0, data.width, data.height], saving: false, ...drafts.get(data.id) };
    for (const [kind] of s.boxes) if (kind && !s.kinds.includes(kind)) s.kinds.push(kind);
    states.set(parentElement, s);
  }
  for (const k of data.kinds) if (!s.kinds.includes(k)) s.kinds.push(k);
  if (!s.kinds.includes(s.kind)) s.kind = s.kinds[0] || "";
  const svg = root.querySelector("svg"), $ = name => root.querySelector(name);
  const W = data.width, H = data.height;
  let drag = null;

  // ---- what is shown

  function scale() { return s.view[2] / Math.max(svg.clientWidth, 1); }          // picture pixels in a screen pixel
  function colour(kind) { return COLOURS[Math.max(s.kinds.indexOf(kind), 0) % COLOURS.length]; }
  function el(name, attributes, parent) {
    const e = document.createElementNS(SVG, name);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    parent.appendChild(e);
    return e;
  }

  function keep() {
    drafts.delete(s.id);
    if (s.done.length && !s.saving) drafts.set(s.id, { boxes: s.boxes, done: s.done, undone: s.undone });
    if (drafts.size > DRAFTS) drafts.delete(drafts.keys().next().value);         // the oldest
  }

  function show() {
    keep();
    svg.setAttribute("viewBox", s.view.join(" "));
    const layer = $(".boxes");
    layer.replaceChildren();
    const px = scale();
    s.boxes.forEach(([kind, x1, y1, x2, y2], i) => {
      const on = i === s.chosen, at = { x: x1, y: y1, width: Math.max(x2 - x1, 0.01), height: Math.max(y2 - y1, 0.01) };
      el("rect", { ...at, class: "under" }, layer);
      el("rect", { ...at, class: on ? "box on" : "box", stroke: colour(kind) }, layer);
      const name = el("text", { x: x1 + 3 * px, y: y1 > 18 * px ? y1 - 5 * px : y2 + 14 * px, "font-size": 13 * px, class: "name" }, layer);
      name.textContent = kind || "no kind";
      if (on) for (const [x, y] of [[x1, y1], [x2, y1], [x1, y2], [x2, y2]])
        el("rect", { x: x - 4 * px, y: y - 4 * px, width: 8 * px, height: 8 * px, class: "grip" }, layer);
    });
    chips();
    const n = s.boxes.length, box = s.boxes[s.chosen];
    $(".said").textContent = box
      ? `Box ${s.chosen + 1} of ${n}: ${box[0]}, ${Math.round(box[3] - box[1])} × ${Math.round(box[4] - box[2])} pixels`
      : n ? `${n} ${n === 1 ? "box" : "boxes"}` : "No box: the picture will be saved as free of defects";
    $(".undo").disabled = !s.done.length;
    $(".redo").disabled = !s.undone.length;
    $(".delete").disabled = !box;
    $(".none").disabled = !n;
    $(".save").textContent = n ? "Save" : "Save: no defect";
    root.dataset.boxes = JSON.stringify(s.boxes);                                // what a test, or a curious person, can read
  }

  function chips() {
    const bar = $(".kinds"), now = s.boxes[s.chosen] ? s.boxes[s.chosen][0] : s.kind;
    bar.replaceChildren(...s.kinds.map((kind, i) => {
      const b = document.createElement("button");
      b.type = "button";
      b.className = "kind";
      b.setAttribute("aria-pressed", String(kind === now));
      const dot = document.createElement("span");
      dot.className = "dot";
      dot.style.background = colour(kind);
      const key = document.createElement("kbd");
      key.textContent = i < 9 ? i + 1 : "";
      b.append(dot, kind, key);
      b.onclick = () => { relabel(kind); svg.focus({ preventScroll: true }); };
      return b;
    }));
  }

  // ---- changes, each of which can be taken back

  function change(make, join) {
    const before = JSON.stringify(s.boxes), chosen = s.chosen;
    make();
    if (JSON.stringify(s.boxes) !== before) {
      if (!(join && s.joined === join)) s.done.push([before, chosen]);
      s.undone = [];
      s.joined = join;
    }
    show();
  }
  function step(from, to) {
    const last = from.pop();
    if (!last) return;
    to.push([JSON.stringify(s.boxes), s.chosen]);
    s.boxes = JSON.parse(last[0]);
    s.chosen = Math.min(last[1], s.boxes.length - 1);
    s.joined = null;
    show();
  }
  function relabel(kind) {
    s.kind = kind;
    if (s.boxes[s.chosen]) change(() => { s.boxes[s.chosen][0] = kind; }); else show();
  }
  function remove() {
    if (!s.boxes[s.chosen]) return;
    change(() => { s.boxes.splice(s.chosen, 1); s.chosen = Math.min(s.chosen, s.boxes.length - 1); });
  }
  function add() {
    const [x, y, w, h] = s.view, r = Math.max(Math.min(w, h) / 10, SMALL), cx = x + w / 2, cy = y + h / 2;
    change(() => {
      s.boxes.push([s.kind || "defect", ...fit(cx - r, cy - r, cx + r, cy + r)]);
      s.chosen = s.boxes.length - 1;
    });
  }
  function next(by) {
    const n = s.boxes.length;
    s.chosen = n ? (s.chosen + by + (s.chosen < 0 && by < 0 ? 1 : 0) + n) % n : -1;
    s.joined = null;
    show();
  }
  const clip = (v, most) => Math.min(Math.max(v, 0), most);
  function fit(x1, y1, x2, y2) {
    const box = [clip(Math.min(x1, x2), W), clip(Math.min(y1, y2), H), clip(Math.max(x1, x2), W), clip(Math.max(y1, y2), H)];
    return box.map(v => Math.round(v * 100) / 100);
  }
  function moved([kind, x1, y1, x2, y2], dx, dy) {
    dx = Math.min(Math.max(dx, -x1), W - x2);
    dy = Math.min(Math.max(dy, -y1), H - y2);
    return [kind, ...[x1 + dx, y1 + dy, x2 + dx, y2 + dy].map(v => Math.round(v * 100) / 100)];
  }
  function save() {
    if (s.saving) return;
    s.saving = true;
    setTriggerValue("saved", { id: s.id, boxes: s.boxes });
    drafts.delete(s.id);
    const sent = s;
    setTimeout(() => { sent.saving = false; if (states.get(parentElement) === sent) keep(); }, 1500);      // refused: it is still here
  }

  // ---- mouse and finger

  function at(event) {
    const m = svg.getScreenCTM().inverse(), p = new DOMPoint(event.clientX, event.clientY).matrixTransform(m);
    return [p.x, p.y];
  }
  function grip([, x1, y1, x2, y2], [x, y]) {                     // what a point takes hold of: "", sides such as "l" or "rt", "in"
    const r = GRAB * scale();
    if (x < x1 - r || x > x2 + r || y < y1 - r || y > y2 + r) return "";
    const wide = x2 - x1 > 3 * r, tall = y2 - y1 > 3 * r;
    const near = (a, b) => Math.abs(a - b) < r;
    const side = (near(x, x1) ? "l" : near(x, x2) ? "r" : "") + (near(y, y1) ? "t" : near(y, y2) ? "b" : "");
    if (side.length === 1 && !(side === "l" || side === "r" ? wide : tall)) return "in";
    return side || "in";
  }
  function under(point) {                                                        // the chosen box first, then the smallest
    if (s.boxes[s.chosen] && grip(s.boxes[s.chosen], point)) return s.chosen;
    const hit = s.boxes.map((b, i) => [grip(b, point), (b[3] - b[1]) * (b[4] - b[2]), i]).filter(h => h[0]);
    hit.sort((a, b) => a[1] - b[1]);
    return hit.length ? hit[0][2] : -1;
  }
  svg.onpointerdown = event => {
    if (event.button === 1 || (event.button === 0 && event.getModifierState(" ")) || s.space) {
      drag = { pan: [...s.view], from: [event.clientX, event.clientY] };
    } else if (event.button === 0) {
      const point = at(event), i = event.shiftKey ? -1 : under(point);
      drag = { from: point, i, hold: i < 0 ? "new" : grip(s.boxes[i], point), start: i < 0 ? null : [...s.boxes[i]],
               before: JSON.stringify(s.boxes), was: s.chosen };
      s.chosen = i;
    }
    if (!drag) return;
    svg.setPointerCapture(event.pointerId);
    svg.focus({ preventScroll: true });
    event.preventDefault();
    show();
  };
  svg.onpointermove = event => {
    if (!drag) {
      const point = at(event), i = under(point), hold = i < 0 ? "" : grip(s.boxes[i], point);
      svg.style.cursor = CURSORS[hold];
      return;
    }
    if (drag.pan) {
      const px = scale();
      look(drag.pan[0] - (event.clientX - drag.from[0]) * px, drag.pan[1] - (event.clientY - drag.from[1]) * px, s.view[2]);
      return;
    }
    const [x, y] = at(event), dx = x - drag.from[0], dy = y - drag.from[1];
    if (drag.hold === "new") {
      if (Math.max(Math.abs(dx), Math.abs(dy)) < 3 * scale() && drag.i < 0) return;
      if (drag.i < 0) { s.boxes.push([s.kind || "defect", 0, 0, 0, 0]); drag.i = s.chosen = s.boxes.length - 1; }
      s.boxes[drag.i] = [s.boxes[drag.i][0], ...fit(...drag.from, x, y)];
    } else if (drag.hold === "in") {
      s.boxes[drag.i] = moved(drag.start, dx, dy);
    } else {
      const [kind, x1, y1, x2, y2] = drag.start, by = (side, d) => drag.hold.includes(side) ? d : 0;
      s.boxes[drag.i] = [kind, ...fit(x1 + by("l", dx), y1 + by("t", dy), x2 + by("r", dx), y2 + by("b", dy))];
    }
    show();
  };
  svg.onpointerup = svg.onpointercancel = () => {
    const d = drag;
    drag = null;
    if (!d || d.pan) return;
    const box = s.boxes[d.i];
    if (box && (box[3] - box[1] < SMALL || box[4] - box[2] < SMALL)) { s.boxes = JSON.parse(d.before); s.chosen = -1; }
    if (JSON.stringify(s.boxes) !== d.before) { s.done.push([d.before, d.was]); s.undone = []; s.joined = null; }
    show();
  };
  function look(x, y, w) {                                                       // never beyond the picture
    w = Math.min(Math.max(w, W / 40), W);
    const h = w * H / W;
    s.view = [Math.min(Math.max(x, 0), W - w), Math.min(Math.max(y, 0), H - h), w, h];
    show();
  }
  function zoom(by, point) {
    const [x, y, w, h] = s.view, [px, py] = point || [x + w / 2, y + h / 2], to = Math.min(Math.max(w / by, W / 40), W);
    look(px - (px - x) * to / w, py - (py - y) * to / w, to);
  }
  svg.onwheel = event => {                                                       // without Ctrl the page scrolls
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, at(event));
  };

  // ---- keys, while the picture has the focus

  svg.onkeydown = event => {
    const key = event.key, ctrl = event.ctrlKey || event.metaKey, arrow = ARROWS[key];
    const box = s.boxes[s.chosen], low = key.toLowerCase();
    let mine = true;
    if (arrow && box && !event.altKey) {
      s.steps = event.repeat ? Math.min((s.steps || 1) + 0.5, 12) : 1;           // held down it goes faster
      const n = Math.round(s.steps) * (ctrl ? 10 : 1), [dx, dy] = [arrow[0] * n, arrow[1] * n], [kind, x1, y1, x2, y2] = box;
      const grown = [kind, x1, y1, clip(Math.max(x2 + dx, x1 + 2), W), clip(Math.max(y2 + dy, y1 + 2), H)];
      change(() => { s.boxes[s.chosen] = event.shiftKey ? grown : moved(box, dx, dy); }, `${event.shiftKey ? "size" : "move"} ${s.chosen}`);
    } else if (ctrl && (low === "y" || (low === "z" && event.shiftKey))) step(s.undone, s.done);
    else if (ctrl && low === "z") step(s.done, s.undone);
    else if (ctrl || event.altKey) mine = false;
    else if (/^[1-9]$/.test(key)) { if (s.kinds[key - 1]) relabel(s.kinds[key - 1]); }
    else if (key === "Delete" || key === "Backspace") remove();
    else if (low === "n") add();
    else if (low === "b") next(event.shiftKey ? -1 : 1);
    else if (key === "0") clear();
    else if (key === "Escape") { s.chosen = -1; show(); }
    else if (key === "Enter") save();
    else if (key === "+" || key === "=") zoom(1.5);
    else if (key === "-") zoom(1 / 1.5);
    else if (key === " ") s.space = true;
    else mine = false;
    if (mine) { event.preventDefault(); event.stopPropagation(); }
  };
  svg.onkeyup = event => { if (event.key === " ") s.space = false; };
  function clear() { if (s.boxes.length) change(() => { s.boxes = []; s.chosen = -1; }); }

  $(".undo").onclick = () => step(s.done, s.undone);
  $(".redo").onclick = () => step(s.undone, s.done);
  $(".delete").onclick = remove;
  $(".add").onclick = () => { add(); svg.focus({ preventScroll: true }); };
  $(".none").onclick = clear;
  $(".save").onclick = save;
  $(".closer").onclick = () => zoom(1.5);
  $(".wider").onclick = () => zoom(1 / 1.5);
  $(".fresh").onsubmit = event => {
    event.preventDefault();
    const input = $(".fresh input"), kind = input.value.trim().slice(0, 60);
    if (!kind) return;
    if (!s.kinds.includes(kind)) s.kinds.push(kind);
    input.value = "";
    relabel(kind);
    svg.focus({ preventScroll: true });
  };

  $(".fresh input").onkeydown = event => event.stopPropagation();                // the page's own keys are letters too

  // ---- the picture

  const image = svg.querySelector("image");
  if (image.getAttribute("href") !== data.picture) image.setAttribute("href", data.picture);
  image.setAttribute("width", W);
  image.setAttribute("height", H);
  svg.setAttribute("aria-label", `${data.name}. N: new box, B: next box, 1 to 9: kind, arrows: move, with Shift: resize, Delete, ` +
                   "Ctrl and Z: undo, Enter: save");
  svg.style.aspectRatio = `${W} / ${H}`;
  svg.style.flexBasis = W / H > 1.8 ? "100%" : "";                               // a wide picture has the row for itself
  svg.style.maxWidth = `calc(66vh * ${W / H})`;
  if (root.dataset.picture !== data.id) {
    root.dataset.picture = data.id;
    svg.focus({ preventScroll: true });
  }
  show();
  const seen = new ResizeObserver(show);
  seen.observe(svg);
  return () => seen.disconnect();
}
