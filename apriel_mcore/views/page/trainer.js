// Is the optimizer well, and where does the time go?

import { el } from "./dom.js";

const PARTS = [["wait", "waiting for rollouts", 4], ["train", "training", 0], ["publish", "publishing", 2], ["checkpoint", "saving", 3]];

export function trainer(page) {
  const specs = [
    ["Log-prob gap to the server", "mean |difference|, nats a token", [["logprob_abs_diff", "gap"]], {}],
    ["KL of server and trainer", "k3 estimate, nats a token", [["kl_rollout_train", "KL"]], {}],
    ["Lag", "optimizer steps", [["lag_mean", "mean"], ["lag_max", "largest"]], {}],
    ["Entropy", "nats a token", [["entropy", "entropy"]], {}],
    ["Length penalty", "mean over rollouts", [["length_penalty_mean", "penalty"]], { zero: false }],
    ["Truncated answers", "share", [["truncated_fraction", "truncated"]], {}],
    ["Loss", "", [["loss", "loss"]], { zero: false }],
    ["Gradient norm", "before clipping", [["grad_norm", "norm"]], {}],
    ["Clipped tokens", "share", [["clip_fraction", "clipped"]], {}],
    ["Learning rate", "", [["lr", "rate"]], {}],
  ];
  const charts = specs.map(([title, unit, keys, options], i) => ({ chart: page.chart({ title, unit, ...options }), keys, i }));
  return {
    node: el("div", { class: "grid" }, ...charts.map(({ chart }) => chart.node)),
    update() {
      for (const { chart, keys, i } of charts) chart.update(keys.map(([key, name], j) => page.line(key, name, page.color(i + 3 * j))));
    },
  };
}

export function time(page) {
  const parts = page.chart({ title: "Where the time goes", unit: "seconds a step", stacked: true, height: 260 });
  const charts = [
    ["Trained tokens a second", "", [["tokens_per_s", "tokens/s"]]],
    ["Tokens a step", "", [["tokens_trained", "trained"], ["tokens_generated", "generated"]]],
    ["Packing", "share of the rows' capacity", [["packing_fill", "fill"], ["packing_balance", "balance"]]],
    ["Work ahead of the trainer", "groups", [["feed.groups_in_flight", "in flight"], ["feed.short_batches", "short batches"]]],
  ].map(([title, unit, keys]) => ({ chart: page.chart({ title, unit }), keys }));
  const publish = page.chart({ title: "Publishing a version", unit: "seconds" });
  const probe = page.chart({ title: "Probe text after publishing", unit: "mean |difference|, nats a token" });
  return {
    node: el("div", {}, parts.node, el("div", { class: "grid" }, ...charts.map(({ chart }) => chart.node), publish.node, probe.node)),
    update() {
      parts.update(PARTS.map(([key, name, color]) => page.line(`time_${key}_s`, name, page.color(color))));
      for (const { chart, keys } of charts) chart.update(keys.map(([key, name], i) => page.line(key, name, page.color(i))));
      publish.update([page.receipt("seconds", "until every server confirmed", page.color(2)), page.receipt("export_s", "of which writing", page.color(5))]);
      probe.update([page.receipt("probe_mean_abs_diff", "gap", page.color(0))]);
    },
  };
}
