// Walk through a decoder's latent space, one dimension at a time.

const STRIP = [-3, -2, -1, 0, 1, 2, 3];

/** A name such as z12 with its number below. */
function nameOf(face) {
  const [, letters, number] = face.match(/^(.*?)(\d*)$/);
  return number ? [letters, create("sub", {}, number)] : [letters];
}

/** Seven pictures of one dimension from low to high; each is a button that goes there. */
function createStrip(name, info, onPick) {
  const title = create("p", { class: "mx-caption" });
  const tray = createTray(info, STRIP.map((value) => ({ text: formatNumber(value, 0) })), (n) => onPick(STRIP[n]));
  const node = create("div", { class: "mx-strip" }, title, tray.node);
  let drawn = "";
  const show = (z, focus, face, decodeItem) => {
    const others = JSON.stringify([focus, z.map((value, n) => (n === focus ? 0 : value))]);
    tray.press(STRIP.findIndex((value) => Math.abs(z[focus] - value) < 0.025));
    if (others === drawn) return; // moving the focused dimension leaves its own strip as it is
    drawn = others;
    title.replaceChildren("Only ", ...nameOf(face), " changes here. Pick one to go there.");
    STRIP.forEach((value, n) => {
      decodeItem(`${name}/${n}`, z.map((old, k) => (k === focus ? value : old)), (values) => tray.show(n, values));
      tray.frames[n].button.setAttribute("aria-label", `Set ${face} to ${value}`);
    });
  };
  return { node, show, forget: () => { drawn = ""; } };
}

function createDimension({ dim, face, kl, largestKl, limit, onInput, onFocus }) {
  const input = createInput({ type: "range", min: -limit, max: limit, step: 0.05, "aria-label": `latent dimension ${face}` });
  const value = create("output", { class: "mx-value" });
  const node = create("div", { class: "mx-dim" }, create("span", { class: "mx-dim-name", "aria-hidden": "true" }, ...nameOf(face)), input, value);
  if (kl !== null) {
    node.append(create("div", { class: "mx-kl", title: `KL of this dimension: ${formatNumber(kl)} nats` },
      create("div", { "aria-hidden": "true" }, create("i", { style: `width:${((100 * kl) / largestKl).toFixed(1)}%` })),
      create("span", { "aria-hidden": "true" }, formatNumber(kl, 1))));
    input.setAttribute("aria-label", `latent dimension ${face}, KL ${formatNumber(kl, 1)} nats`);
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
  const studio = createStudio(el, model);
  const names = Object.keys(options.outputs);
  const read = (name, z) => (options.reads[name] ? options.reads[name].map((n) => z[n]) : z);
  const face = (dim) => options.faces[options.dims.indexOf(dim)];
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
  const choice = createChoice(Object.keys(options.starts).length ? options.legend : "Start from",
    Object.keys(starts).map((name) => ({ value: name, face: name })), (name) => travel(starts[name].slice()));
  const reset = createButton("Reset", () => { write({ focus: options.dims[0] }); travel(initial.slice()); });

  const outputs = Object.fromEntries(names.map((name) =>
    [name, createOutput(options.titles[name], options.outputs[name], studio, options.sound.rate)]));
  const message = create("p", { class: "mx-message" });
  const announcer = createAnnouncer();
  const largestKl = options.kl ? Math.max(...options.kl, 1e-6) : 1;
  const dimensions = options.dims.map((dim, n) => createDimension({
    dim, face: options.faces[n], limit: options.limit, kl: options.kl ? options.kl[n] : null, largestKl,
    onInput: setDimension, onFocus: (focus) => write({ focus }),
  }));
  const strips = names.filter((name) => options.outputs[name].kind !== "bars").map((name) => [name, createStrip(name, options.outputs[name], (value) => {
    const focus = model.get("focus");
    travel(model.get("z").map((old, n) => (n === focus ? value : old)));
  })]);
  const stripHolder = create("div", {});

  el.classList.add("mmvae-explorer", "mx-latent");
  el.replaceChildren(create("div", { class: "mx-body" },
    create("div", { class: "mx-head" }, choice.node, reset),
    create("div", { class: "mx-main" },
      create("div", { class: "mx-view" },
        create("div", { class: "mx-outputs" }, ...names.map((name) => outputs[name].node)), message),
      create("div", { class: `mx-dims${options.kl ? "" : " mx-no-kl"}` },
        create("div", { class: "mx-dim mx-dim-head", "aria-hidden": "true" }, create("span", {}, ""),
          create("span", {}, `${options.dims.length} of ${initial.length} shown`), create("span", {}, "value"), options.kl ? create("span", {}, "KL, nats") : null),
        ...dimensions.map(({ node }) => node))),
    stripHolder, announcer.node));

  const describe = () => {
    const bars = names.filter((name) => options.outputs[name].kind === "bars");
    const spoken = (bars.length ? bars : names).map((name) => outputs[name].describe(bars.length === 0)).filter(Boolean);
    const text = spoken.join(" ");
    if (!text) return;
    message.textContent = text;
    for (const name of names) if (options.outputs[name].kind === "image") outputs[name].canvas.setAttribute("aria-label", `${options.alt} ${text}`);
    announcer.say(text);
  };
  const draw = () => {
    const focus = model.get("focus");
    for (const name of names) studio.show(`large/${name}`, name, read(name, shown), (values) => { outputs[name].show(values); describe(); }, 0);
    dimensions.forEach(({ show }) => show(shown, focus));
    const [name, strip] = strips.find(([m]) => !options.reads[m] || options.reads[m].includes(focus)) ?? strips[0];
    if (stripHolder.firstChild !== strip.node) { stripHolder.replaceChildren(strip.node); strip.forget(); }
    strip.show(shown, focus, face(focus), (slot, z, paint) => studio.show(slot, name, read(name, z), paint));
    const z = model.get("z");
    choice.show(Object.keys(starts).find((key) => starts[key].every((value, n) => Math.abs(value - z[n]) < 1e-6)));
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
    studio.stop();
    model.off("change:z", onZ);
    model.off("change:focus", painter.soon);
  };
}
