// Walk through a decoder's latent space, one dimension at a time.

const STRIP = [-3, -2, -1, 0, 1, 2, 3];
const GLIDE_MS = 320;
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Numbers in [0, 1] as grey levels. */
function paintPicture(canvas, values) {
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  for (let n = 0; n < values.length; n++) {
    picture.data.fill(Math.round(255 * values[n]), 4 * n, 4 * n + 3);
    picture.data[4 * n + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

function rankClasses(probabilities) {
  return Array.from(probabilities, (p, n) => ({ p, n })).sort((a, b) => b.p - a.p);
}

function describePicture(probabilities, classes, image) {
  if (!probabilities) {
    return `Mean brightness ${formatNumber(image.reduce((a, b) => a + b, 0) / image.length)}.`;
  }
  const [{ p, n }] = rankClasses(probabilities);
  return `Decoded as ${classes[n]}, probability ${p > 0.995 ? "above 0.99" : formatNumber(p)}.`;
}

function createBars(classes) {
  const bars = classes.map((name) => {
    const bar = create("i");
    const node = create("div", { class: "mx-bar" }, create("span", {}, name), create("div", {}, bar));
    return { node, bar };
  });
  const node = create("div", { class: "mx-bars", role: "img" },
    create("p", { class: "mx-caption", "aria-hidden": "true" }, "label decoder"), ...bars.map((bar) => bar.node));
  const show = (probabilities) => {
    const [{ n: best }] = rankClasses(probabilities);
    bars.forEach(({ node: row, bar }, n) => {
      bar.style.width = `${(100 * probabilities[n]).toFixed(1)}%`;
      row.classList.toggle("mx-best", n === best);
    });
    node.setAttribute("aria-label", `Class probabilities: ${rankClasses(probabilities).slice(0, 3)
      .map(({ p, n }) => `${classes[n]} ${formatNumber(p)}`).join(", ")}`);
  };
  return { node, show };
}

function nameOf(dim) {
  return ["z", create("sub", {}, String(dim))];
}

/** Seven pictures of one dimension from low to high; each is a button that goes there. */
function createStrip(shape, onPick) {
  const title = create("p", { class: "mx-caption" });
  const frames = STRIP.map((value) => {
    const canvas = create("canvas", { width: shape[1], height: shape[0], "aria-hidden": "true" });
    const button = createButton([canvas, create("span", {}, formatNumber(value, 0))], () => onPick(value), { class: "mx-frame" });
    return { value, canvas, button };
  });
  const node = create("div", { class: "mx-strip" }, title,
    create("div", { class: "mx-frames" }, ...frames.map(({ button }) => button)));
  let drawn = "";
  const show = (z, focus, decodeImage) => {
    const others = JSON.stringify([focus, z.map((value, n) => (n === focus ? 0 : value))]);
    for (const { value, button } of frames) button.setAttribute("aria-pressed", String(Math.abs(z[focus] - value) < 0.025));
    if (others === drawn) return; // moving the focused dimension leaves its own strip as it is
    drawn = others;
    title.replaceChildren("Only ", ...nameOf(focus), " changes here. Pick a picture to go there.");
    for (const { value, canvas, button } of frames) {
      paintPicture(canvas, decodeImage(z.map((old, n) => (n === focus ? value : old))));
      button.setAttribute("aria-label", `Set z${focus} to ${value}`);
    }
  };
  return { node, show };
}

function createDimension({ dim, kl, largestKl, limit, onInput, onFocus }) {
  const input = createInput({ type: "range", min: -limit, max: limit, step: 0.05, "aria-label": `latent dimension z${dim}` });
  const value = create("output", { class: "mx-value" });
  const node = create("div", { class: "mx-dim" }, create("span", { class: "mx-dim-name", "aria-hidden": "true" }, ...nameOf(dim)), input, value);
  if (kl !== null) {
    node.append(create("div", { class: "mx-kl", title: `KL of this dimension: ${formatNumber(kl)} nats` },
      create("div", { "aria-hidden": "true" }, create("i", { style: `width:${((100 * kl) / largestKl).toFixed(1)}%` })),
      create("span", { "aria-hidden": "true" }, formatNumber(kl, 1))));
    input.setAttribute("aria-label", `latent dimension z${dim}, KL ${formatNumber(kl, 1)} nats`);
  }
  input.addEventListener("input", () => onInput(dim, Number(input.value)));
  input.addEventListener("focus", () => onFocus(dim));
  input.addEventListener("pointerdown", () => onFocus(dim)); // Safari does not focus a slider on touch
  const show = (z, focus) => {
    const text = formatNumber(z[dim]);
    input.value = z[dim];
    input.setAttribute("aria-valuetext", text);
    value.textContent = text;
    node.classList.toggle("mx-current", dim === focus);
  };
  return { node, show };
}

function renderLatentExplorer({ model, el }) {
  const options = model.get("options");
  const spec = model.get("spec");
  const weights = unpackWeights(model.get("weights"), spec.values);
  const decoders = spec.decoders;
  const decodeImage = (z) => decode(decoders.image, weights, z);
  const initial = Array.from(model.get("z"));
  let shown = initial.slice();
  let glide = 0;

  const write = (changes) => {
    for (const [key, value] of Object.entries(changes)) model.set(key, value);
    model.save_changes();
  };
  const setDimension = (dim, value) => write({ z: model.get("z").map((old, n) => (n === dim ? value : old)) });

  /** Travel to z, so that the eye can follow; the model is there at once. */
  const travel = (z) => {
    const from = shown.slice();
    write({ z });
    if (calm()) return;
    const start = performance.now();
    const step = (now) => {
      const t = Math.min(1, Math.max(0, now - start) / GLIDE_MS);
      const eased = t * t * (3 - 2 * t);
      shown = t === 1 ? z.slice() : from.map((value, n) => value + eased * (z[n] - value));
      painter.now();
      glide = t < 1 ? requestAnimationFrame(step) : 0;
    };
    painter.stop();
    glide = requestAnimationFrame(step);
  };

  const starts = { ...options.starts, "prior mean": initial.map(() => 0) };
  const choice = createChoice(Object.keys(options.starts).length ? "Start from the mean given the label" : "Start from",
    Object.keys(starts).map((name) => ({ value: name, face: name })), (name) => travel(starts[name].slice()));
  const reset = createButton("Reset", () => { write({ focus: options.dims[0] }); travel(initial.slice()); });

  const [height, width] = options.image_shape;
  const canvas = create("canvas", { class: "mx-picture", width, height, role: "img" });
  const bars = decoders.label ? createBars(options.classes) : null;
  const message = create("p", { class: "mx-message" });
  const announcer = createAnnouncer();
  const largestKl = options.kl ? Math.max(...options.kl, 1e-6) : 1;
  const dimensions = options.dims.map((dim, n) => createDimension({
    dim, limit: options.limit, kl: options.kl ? options.kl[n] : null, largestKl,
    onInput: setDimension, onFocus: (focus) => write({ focus }),
  }));
  const strip = createStrip(options.image_shape, (value) => {
    const focus = model.get("focus");
    travel(model.get("z").map((old, n) => (n === focus ? value : old)));
  });

  el.classList.add("mmvae-explorer", "mx-latent");
  el.replaceChildren(create("div", { class: "mx-body" },
    create("div", { class: "mx-head" }, choice.node, reset),
    create("div", { class: "mx-main" },
      create("div", { class: "mx-view" },
        create("div", { class: "mx-outputs" }, canvas, ...(bars ? [bars.node] : [])), message),
      create("div", { class: `mx-dims${options.kl ? "" : " mx-no-kl"}` },
        create("div", { class: "mx-dim mx-dim-head", "aria-hidden": "true" }, create("span", {}, ""),
          create("span", {}, `${options.dims.length} of ${initial.length} shown`), create("span", {}, "value"), options.kl ? create("span", {}, "KL, nats") : null),
        ...dimensions.map(({ node }) => node))),
    strip.node, announcer.node));

  const draw = () => {
    const focus = model.get("focus");
    const image = decodeImage(shown);
    const probabilities = decoders.label ? decode(decoders.label, weights, shown) : null;
    paintPicture(canvas, image);
    bars?.show(probabilities);
    dimensions.forEach(({ show }) => show(shown, focus));
    strip.show(shown, focus, decodeImage);
    const text = describePicture(probabilities, options.classes, image);
    message.textContent = text;
    canvas.setAttribute("aria-label", `${options.alt} ${text}`);
    announcer.say(text);
    const z = model.get("z");
    choice.show(Object.keys(starts).find((name) => starts[name].every((value, n) => Math.abs(value - z[n]) < 1e-6)));
  };
  const painter = createPainter(el, draw);
  const onZ = () => {
    cancelAnimationFrame(glide);
    shown = Array.from(model.get("z"));
    painter.soon();
  };
  model.on("change:z", onZ);
  model.on("change:focus", painter.soon);
  painter.now();
  return () => {
    cancelAnimationFrame(glide);
    painter.stop();
    model.off("change:z", onZ);
    model.off("change:focus", painter.soon);
  };
}
