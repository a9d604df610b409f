// Is it working? The few numbers and pictures that say so.

import { Chart } from "./chart.js";
import { el } from "./dom.js";
import { clock, count, duration, fixed, short } from "./format.js";
import { meanOf, points } from "./frames.js";

export function overview(page) {
  const tiles = el("section", { class: "tiles", "aria-label": "key numbers" });
  const messages = el("section", { class: "card messages" });
  const reward = page.chart({ title: "Task reward of trained groups", top: 1 });
  const accuracy = page.chart({ title: "Held-out accuracy", top: 1 });
  const share = page.chart({ title: "Share of trained groups", unit: "since the start; dashed: target" });
  const length = page.chart({ title: "Answer length", unit: "tokens, mean of a step" });
  const charts = el("section", { class: "grid two" }, reward.node, accuracy.node, share.node, length.node);
  return {
    node: el("div", {}, tiles, charts, messages),
    update() {
      tiles.replaceChildren(...numbers(page).map(tile));
      messages.replaceChildren(...heard(page));
      reward.update(page.byDomain("reward"));
      accuracy.update(heldOut(page));
      share.update([...page.byDomain("trained_share"), ...page.byDomain("target_share").map((line) => ({ ...line, name: `${line.name} target`, dashed: true }))]);
      length.update(page.byDomain("tokens_mean"));
    },
  };
}

export function heldOut(page, field = "accuracy") {
  const { evals, domains } = page.card;
  return domains.map((domain, i) => ({ name: domain, color: page.color(i), x: evals.map((one) => one.step), y: evals.map((one) => one[`${field}.${domain}`] ?? null) }));
}

function tile([label, value, note]) {
  return el("div", { class: "card tile" }, el("span", {}, label), el("b", {}, value), el("small", {}, note ?? ""));
}

function numbers(page) {
  const { card, frame } = page;
  const { latest, evals } = card;
  const rewards = points(frame.steps, "reward_mean").y.filter((one) => one !== null);
  const part = Math.max(1, Math.min(5, Math.floor(rewards.length / 4)));
  const drift = card.domains.reduce((sum, name) => sum + Math.abs((latest[`trained_share.${name}`] ?? 0) - (latest[`target_share.${name}`] ?? 0)), 0);
  const found = [["Step", card.step.toLocaleString("en"), `${card.num_steps ? `of ${card.num_steps.toLocaleString("en")}` : ""} ${remaining(page)}`]];
  if (evals.length) found.push(["Held-out accuracy", arrow(evals[0].accuracy_mean, evals.at(-1).accuracy_mean), "mean of domains, first to last"]);
  if (rewards.length) found.push(["Task reward", arrow(meanOf(rewards.slice(0, part)), meanOf(rewards.slice(-part))), "first to last steps"]);
  if (card.step)
    found.push(
      ["Mixture off target", fixed(drift, 3), "L1 of trained and target share"],
      ["Log-prob gap", fixed(latest.logprob_abs_diff, 4), "trainer to server, nats a token"],
      ["Lag", `${fixed(latest.lag_mean, 1)}`, `steps behind; at most ${short(latest.lag_max)}`],
      ["Throughput", short(latest.tokens_per_s), "trained tokens a second"],
      ["Step time", duration(stepTime(latest)), bottleneck(latest)],
    );
  return found;
}

function arrow(before, after) {
  return `${fixed(before)} \u2192 ${fixed(after)}`;
}

function stepTime(latest) {
  return ["wait", "train", "publish", "checkpoint"].reduce((sum, name) => sum + (latest[`time_${name}_s`] ?? 0), 0);
}

function bottleneck(latest) {
  const names = { wait: "waiting for rollouts", train: "training", publish: "publishing", checkpoint: "saving" };
  const [most] = Object.keys(names).sort((a, b) => (latest[`time_${b}_s`] ?? 0) - (latest[`time_${a}_s`] ?? 0));
  return `${Math.round((100 * (latest[`time_${most}_s`] ?? 0)) / (stepTime(latest) || 1))}% ${names[most]}`;
}

function remaining({ card }) {
  const left = card.num_steps - card.step;
  const spent = card.heard - card.started;
  if (!card.step || left <= 0) return card.step ? `in ${duration(spent)}` : "";
  return card.state === "open" ? `about ${duration((spent / card.step) * left)} left` : `in ${duration(spent)}`;
}

function heard({ card }) {
  const last = card.messages.slice(-8).reverse();
  const alarms = card.num_alarms ? count(card.num_alarms, "alarm") : "no alarm";
  return [
    el("h2", {}, "Messages ", el("small", {}, alarms)),
    last.length
      ? el("ol", {}, ...last.map((one) => el("li", { class: one.event }, el("time", {}, clock(one.time)), el("span", {}, one.message))))
      : el("p", { class: "soft" }, "nothing was said yet"),
  ];
}
