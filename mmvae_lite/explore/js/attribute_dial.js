// Switch attributes on and off and keep the style.

function renderAttributeDial(context) {
  const { model, el } = context;
  const options = model.get("options");
  const studio = createStudio(el, model);
  const { message, write, say, reset, start, onEnd } = createExplorer(context, "mx-attributes", ["on", "z"]);
  onEnd(studio.stop);
  const ticks = options.attributes.map((name, n) => createTick(name, (value) => write({ on: model.get("on").map((old, k) => (k === n ? value : old)) })));
  const styles = createStyleDials(options, model, write);
  const outputs = createOutputs(options, studio);
  const code = () => options.codes.flatMap((pair, n) => pair[model.get("on")[n] ? 1 : 0]);
  const paint = () => {
    const on = model.get("on");
    ticks.forEach(({ show }, n) => show(on[n]));
    styles.show();
    const named = options.attributes.filter((_, n) => on[n]);
    outputs.show((name) => (options.reads[name] === "all" ? [...model.get("z"), ...code()] : code()), (text) =>
      say(`${named.length ? `With ${named.join(", ")}.` : "No attribute is on."} ${text}`));
  };
  return start([
    create("div", { class: "mx-main" }, create("div", { class: "mx-view" }, outputs.node, message),
      create("div", { class: "mx-side" },
        create("fieldset", { class: "mx-choice" }, create("legend", {}, "Attributes"), create("div", { class: "mx-ticks" }, ...ticks.map(({ node }) => node))),
        styles.node, create("div", { class: "mx-buttons" }, ...styles.buttons, reset(styles.restart))))], paint);
}
