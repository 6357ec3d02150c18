// One latent in the plane, every modality decoded from it in one class.

/** A disc to drag a point in; arrow keys move it too. */
function createPad(radius, onMove) {
  const side = 200, reach = 84, middle = side / 2;
  const point = createSvg("circle", { r: 9, class: "mx-dot" });
  const touch = createSvg("circle", { r: 24, class: "mx-touch" });
  const others = createSvg("g", { class: "mx-others" });
  const handle = createSvg("g", { class: "mx-handle", tabindex: "0", role: "application", "aria-label": "the latent in the plane; arrow keys move it", "data-lm-suppress-shortcuts": "true" }, touch, point);
  const node = createSvg("svg", { class: "mx-pad", viewBox: `0 0 ${side} ${side}`, role: "group", "aria-label": "plane of the latent" },
    createSvg("circle", { cx: middle, cy: middle, r: reach, class: "mx-rim" }),
    createSvg("path", { d: `M${middle - reach},${middle}H${middle + reach}M${middle},${middle - reach}V${middle + reach}`, class: "mx-cross" }),
    createSvg("text", { x: middle + reach + 3, y: middle + 4 }, "z\u2081"), createSvg("text", { x: middle - 5, y: middle - reach - 5 }, "z\u2082"),
    others, handle);
  const inside = (z) => {
    const length = Math.hypot(...z);
    return (length > radius ? z.map((v) => (v * radius) / length) : z).map((v) => Number(v.toFixed(3)));
  };
  const at = (event) => {
    const box = node.getBoundingClientRect();
    const [x, y] = [((event.clientX - box.left) / box.width) * side, ((event.clientY - box.top) / box.height) * side];
    onMove(inside([((x - middle) / reach) * radius, (-(y - middle) / reach) * radius]));
  };
  let dragging = false;
  node.addEventListener("pointerdown", (event) => { event.preventDefault(); node.setPointerCapture(event.pointerId); dragging = true; at(event); });
  node.addEventListener("pointermove", (event) => { if (dragging) at(event); });
  for (const end of ["pointerup", "pointercancel"]) node.addEventListener(end, () => { dragging = false; });
  let current = [0, 0];
  handle.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    onMove(inside(current.map((v, n) => v + 0.1 * step[n])));
  });
  const place = (z) => [middle + (z[0] / radius) * reach, middle - (z[1] / radius) * reach];
  return {
    node,
    show: (z, rest) => {
      current = z;
      handle.setAttribute("transform", `translate(${place(z).join(" ")})`);
      others.replaceChildren(...rest.map((each, n) => createSvg("circle", { cx: place(each)[0], cy: place(each)[1], r: 6, class: `mx-other mx-c${n + 1}` })));
    },
    inside,
  };
}

function renderEntangledSlider(context) {
  const { model, el } = context;
  const options = model.get("options");
  const studio = createStudio(el, model);
  const { message, write, say, reset, start, onEnd } = createExplorer(context, "mx-entangled", ["z", "label", "mixed"]);
  onEnd(studio.stop);
  const names = Object.keys(options.outputs);
  const pad = createPad(options.radius, (z) => write({ z }));
  const dials = [0, 1].map((dim) => createDial(["z", create("sub", {}, String(dim + 1))], {
    label: `latent dimension z${dim + 1}`, min: -options.radius, max: options.radius, step: 0.02,
    onInput: (value) => write({ z: pad.inside(model.get("z").map((old, n) => (n === dim ? value : old))) }),
  }));
  const label = createChoice("Class", options.classes.map((face, n) => ({ value: String(n), face })), (n) => write({ label: Number(n) }));
  const mixed = createTick(`${names.slice(1).join(" and ")} from a latent of ${names.length > 2 ? "their" : "its"} own (mixed, not entangled)`, (value) => write({ mixed: value }));
  const outputs = createOutputs(options, studio);
  /** The latent of a modality: the shared one, or where they are mixed a draw that has nothing to do with it. */
  const own = (n) => {
    const z = model.get("z");
    if (n === 0 || !model.get("mixed")) return z;
    const { uniform } = createNormal(1 + n + Math.round(20 * (z[0] + 5)) * 401 + Math.round(20 * (z[1] + 5)) + 90001 * model.get("label"));
    const [length, angle] = [options.radius * Math.sqrt(uniform()), 2 * Math.PI * uniform()];
    return [length * Math.cos(angle), length * Math.sin(angle)];
  };
  const paint = () => {
    const z = model.get("z");
    const hot = options.classes.map((_, n) => (n === model.get("label") ? 1 : 0));
    label.show(String(model.get("label")));
    mixed.show(model.get("mixed"));
    dials.forEach(({ show }, n) => show(z[n], formatNumber(z[n])));
    pad.show(z, model.get("mixed") ? names.slice(1).map((_, n) => own(n + 1)) : []);
    outputs.show((name) => [...own(names.indexOf(name)), ...hot], () =>
      say(`Class ${options.classes[model.get("label")]}, latent ${formatNumber(z[0])} and ${formatNumber(z[1])}. `
        + (model.get("mixed") ? `A small step of the latent leaves the ${names.slice(1).join(" and the ")} anywhere.` : "A small step of the latent is a small step in every picture.")));
  };
  return start([
    create("div", { class: "mx-controls" }, label.node),
    create("div", { class: "mx-main mx-main-pad" }, create("div", { class: "mx-side" }, pad.node, create("div", { class: "mx-dials" }, ...dials.map(({ node }) => node))),
      create("div", { class: "mx-side" }, outputs.node, mixed.node, create("div", { class: "mx-buttons" }, reset()))),
    message], paint);
}
