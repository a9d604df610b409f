// Numbers and times as people read them.

export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size >= 1e9) return trimmed(value / 1e9, 2) + "G";
  if (size >= 1e6) return trimmed(value / 1e6, 2) + "M";
  if (size >= 1e4) return trimmed(value / 1e3, 1) + "k";
  if (size >= 100 || Number.isInteger(value)) return trimmed(value, 0);
  if (size >= 1) return trimmed(value, 2);
  if (size >= 0.001 || size === 0) return trimmed(value, 4);
  return value.toExponential(1);
}

function trimmed(value, digits) {
  return String(Number(value.toFixed(digits)));
}

export function fixed(value, digits = 2) {
  return value === null || value === undefined ? "-" : value.toFixed(digits);
}

export function signed(value, digits = 2) {
  return value === null || value === undefined ? "-" : (value > 0 ? "+" : "") + value.toFixed(digits);
}

export function duration(seconds) {
  if (!(seconds >= 0)) return "-";
  if (seconds < 60) return `${seconds < 10 ? trimmed(seconds, 1) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function clock(time) {
  return new Date(time * 1000).toLocaleTimeString([], { hour12: false });
}

export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// Round numbers between low and high, about `wanted` of them.
export function ticks(low, high, wanted = 5) {
  const raw = (high - low) / Math.max(1, wanted) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((one) => one * power >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}
