// Where a page's numbers come from: the server of a live page, or what a report carries.

import { EMPTY, cut, merged } from "./frames.js";

const PAGE_ROWS = 50;

export class LiveSource {
  constructor() {
    this.live = true;
    this.frames = [];
  }

  async cards() {
    return ask("/api/runs");
  }

  // Asks for what is new alone; resolves to null where nothing is.
  async frame(run, range) {
    const known = this.frames[run];
    const same = known && String(known.range) === String(range);
    const query = range ? { low: range[0], high: range[1] } : {};
    if (same) Object.assign(query, { revision: known.revision, width: known.steps.width, since: known.steps.first_B.at(-1) ?? 0 });
    const fresh = await ask(`/api/runs/${run}/frame`, query);
    if (fresh.unchanged) return null;
    if (same) fresh.steps = merged(known.steps, fresh.steps);
    this.frames[run] = { ...fresh, range };
    return this.frames[run];
  }

  shapes(run) {
    return ask(`/api/runs/${run}/shapes`);
  }

  rollouts(run, query, signal) {
    return ask(`/api/runs/${run}/rollouts`, query, signal);
  }

  group(run, group, signal) {
    return ask(`/api/runs/${run}/groups/${group}`, {}, signal);
  }
}

async function ask(path, query = {}, signal = undefined) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== undefined));
  const response = await fetch(`${path}${words.size ? "?" : ""}${words}`, { signal });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response.json();
}

export class FixedSource {
  constructor(content) {
    this.live = false;
    this.content = content;
    this.rows = content.groups.flatMap((group) => group.rollouts.map((rollout) => ({ ...rollout, end: rollout.text.slice(-64).trim(), question: group.problem.messages })));
  }

  async cards() {
    return [this.content.card];
  }

  async frame(_, range) {
    return { steps: cut(this.content.steps ?? EMPTY, range), receipts: this.content.receipts, revision: 0, range };
  }

  async shapes() {
    return this.content.shapes;
  }

  async rollouts(_, query) {
    const rows = this.rows.filter((row) => accepts(query, row));
    const key = query.order || "step";
    const sign = String(query.descending) === "false" ? 1 : -1;
    rows.sort((a, b) => sign * ((a[key] ?? -Infinity) - (b[key] ?? -Infinity)) || a.row - b.row);
    const offset = query.text ? 0 : query.offset || 0;
    return { rows: rows.slice(offset, query.text ? undefined : offset + PAGE_ROWS), total: rows.length, of: this.rows.length, next: -1, searched: rows.length };
  }

  async group(_, group) {
    return this.content.groups.find((one) => one.group === group);
  }
}

function accepts(query, row) {
  const inside = (name, value) => !(value < Number(query[`${name}_min`] || -Infinity)) && !(value > Number(query[`${name}_max`] || Infinity));
  const words = ["domain", "status", "server"].every((name) => !query[name] || query[name] === row[name]);
  const finish = !query.finish || row.truncated === (query.finish === "truncated");
  const ranges = inside("step", row.step) && inside("reward", row.task) && inside("tokens", row.tokens) && inside("version", row.version) && inside("lag", row.lag);
  return words && finish && ranges && (!query.text || says(row, query.text.toLowerCase()));
}

function says(row, wanted) {
  return row.text.toLowerCase().includes(wanted) || row.question.some((turn) => turn.content.toLowerCase().includes(wanted));
}
