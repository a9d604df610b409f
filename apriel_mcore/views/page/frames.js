// Series in buckets: put new buckets in place, cut a range out, smooth.

export const EMPTY = { width: 1, first_B: [], last_B: [], series: {} };

// `tail` holds buckets from some step on: those that `frame` has from there on are replaced.
export function merged(frame, tail) {
  if (frame.width !== tail.width || !tail.first_B.length) return tail.first_B.length ? tail : frame;
  const kept = frame.first_B.filter((first) => first < tail.first_B[0]).length;
  const total = kept + tail.first_B.length;
  const series = {};
  for (const name of new Set([...Object.keys(frame.series), ...Object.keys(tail.series)])) {
    const before = frame.series[name] ?? [[]];
    const after = tail.series[name] ?? [[]];
    const parts = before.length > 1 || after.length > 1 ? [0, 1, 2] : [0];
    series[name] = parts.map((part) => {
      const old = (before[part] ?? before[0]).slice(0, kept);
      const late = after[part] ?? after[0];
      return Array.from({ length: total }, (_, i) => (i < kept ? old[i] : late[i - kept]) ?? null);
    });
  }
  return {
    width: frame.width,
    first_B: [...frame.first_B.slice(0, kept), ...tail.first_B],
    last_B: [...frame.last_B.slice(0, kept), ...tail.last_B],
    series,
  };
}

export function cut(frame, range) {
  if (!range) return frame;
  const begin = frame.last_B.findIndex((last) => last >= range[0]);
  const after = frame.first_B.findIndex((first) => first > range[1]);
  const from = begin < 0 ? frame.first_B.length : begin;
  const end = after < 0 ? frame.first_B.length : after;
  const series = {};
  for (const [name, parts] of Object.entries(frame.series)) series[name] = parts.map((part) => part.slice(from, end));
  return { width: frame.width, first_B: frame.first_B.slice(from, end), last_B: frame.last_B.slice(from, end), series };
}

// One series for a chart: x is the last step of a bucket, low and high its extremes where it has any.
export function points(frame, name) {
  const [y, low, high] = frame.series[name] ?? [[]];
  return { x: frame.last_B, y, low, high };
}

export function smoothed(y, weight) {
  if (!weight) return y;
  let mean = null;
  return y.map((value) => {
    if (value === null || value === undefined) return value;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
}

export function meanOf(values) {
  const there = values.filter((value) => value !== null && value !== undefined);
  return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
}
