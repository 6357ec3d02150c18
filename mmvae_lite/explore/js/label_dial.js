// Turn the label and keep the style, or the other way round.

function renderLabelDial(context) {
  const { model, el } = context;
  const options = model.get("options");
  const studio = createStudio(el, model);
  const { message, write, say, reset, start, onEnd } = createExplorer(context, "mx-label", ["label", "toward", "mix", "z"]);
  onEnd(studio.stop);
  const { codes, classes, reads } = options;
  const latent = (name, code) => (reads[name] === "all" ? [...model.get("z"), ...code] : code);
  const mixed = () => codes[model.get("label")].map((value, n) => value + model.get("mix") * (codes[model.get("toward")][n] - value));

  const faces = classes.map((face, n) => ({ value: String(n), face }));
  const label = createChoice("Label", faces, (n) => write({ label: Number(n), mix: 0 }));
  const toward = createChoice("Towards", faces, (n) => write({ toward: Number(n), mix: Math.max(model.get("mix"), 0.5) }));
  const mix = createDial("how far", { label: "how far from the label towards the other", min: 0, max: 1, step: 0.01, onInput: (value) => write({ mix: value }) });
  const styles = createStyleDials(options, model, write);
  const outputs = createOutputs(options, studio);
  const info = options.outputs[options.shown];
  const tray = createTray(info, classes.map((text) => ({ text, label: `Set the label to ${text}` })), (n) => write({ label: n, mix: 0 }), "mx-wide");
  let drawn = "";

  const paint = () => {
    const code = mixed();
    label.show(String(model.get("label")));
    toward.show(String(model.get("toward")));
    mix.show(model.get("mix"), formatNumber(model.get("mix")));
    styles.show();
    const [from, to] = [classes[model.get("label")], classes[model.get("toward")]];
    outputs.show((name) => latent(name, code), (text) =>
      say(`${model.get("mix") < 0.005 ? `Label ${from}.` : `${formatNumber(100 * model.get("mix"), 0)}% of the way from ${from} to ${to}.`} ${text}`));
    tray.press(model.get("mix") < 0.005 ? model.get("label") : -1);
    const style = JSON.stringify(model.get("z"));
    if (style === drawn) return;
    drawn = style;
    codes.forEach((each, n) => studio.show(`tray/${n}`, options.shown, latent(options.shown, each), (values) => tray.show(n, values)));
  };
  return start([
    create("div", { class: "mx-controls" }, label.node, toward.node),
    create("div", { class: "mx-main" }, create("div", { class: "mx-view" }, outputs.node, message),
      create("div", { class: "mx-side" }, create("div", { class: "mx-dials" }, mix.node), styles.node,
        create("div", { class: "mx-buttons" }, ...styles.buttons, reset(styles.restart)))),
    create("div", { class: "mx-strip" }, create("p", { class: "mx-caption" }, "The same style under every label. Pick one to go there."), tray.node)], paint);
}
