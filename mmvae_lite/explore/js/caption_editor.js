// Edit a sentence and see what a model makes of it.

function renderCaptionEditor(context) {
  const { model, el } = context;
  const options = model.get("options");
  const studio = createStudio(el, model);
  const { message, write, say, reset, start, onEnd } = createExplorer(context, "mx-captions", ["caption"]);
  onEnd(studio.stop);
  const number = new Map(options.vocabulary.map((word, n) => [word, n]));
  const [RARE, PADDING, END] = [0, 1, 2];
  const split = (text) => text.toLowerCase().match(/[a-z0-9]+(?:[-'][a-z0-9]+)*|[^\sa-z0-9]/g) ?? [];
  const field = create("textarea", { rows: 2, class: "mx-text", "aria-label": "caption", spellcheck: "false", "data-lm-suppress-shortcuts": "true" });
  field.addEventListener("input", () => write({ caption: field.value }));
  const examples = createChoice("Begin with", options.examples.map((text, n) => ({ value: String(n), face: text })), (n) => write({ caption: options.examples[n] }));
  const outputs = createOutputs(options, studio);
  const paint = () => {
    const caption = model.get("caption");
    if (field.value !== caption) field.value = caption;
    examples.show(String(options.examples.indexOf(caption)));
    const words = split(caption).slice(0, options.positions - 1);
    const ids = [...words.map((word) => number.get(word) ?? RARE), END];
    while (ids.length < options.positions) ids.push(PADDING);
    const strange = [...new Set(words.filter((word) => !number.has(word)))];
    const known = strange.length ? ` Not in its vocabulary: ${strange.join(", ")}.` : " All of them are in its vocabulary.";
    studio.show("words", "words", ids, (z) => {
      const latent = Array.from(z);
      outputs.show(() => latent, (text) => say(`${words.length} words.${known} ${text}`));
    }, 0);
  };
  return start([
    create("div", { class: "mx-controls mx-sentences" }, examples.node, create("div", { class: "mx-buttons" }, reset())),
    create("label", { class: "mx-field-wide" }, create("span", { class: "mx-caption", "aria-hidden": "true" }, "Edit the caption"), field),
    outputs.node, message], paint);
}
