// Days, times, sizes and shares as people write them. Days are local ones, as the server names them.

const utc = { timeZone: "UTC" };
const LANGUAGE = "en-GB";
const long = new Intl.DateTimeFormat(LANGUAGE, { weekday: "long", day: "numeric", month: "long", year: "numeric", ...utc });
const short = new Intl.DateTimeFormat(LANGUAGE, { weekday: "short", day: "numeric", month: "short", year: "numeric", ...utc });
const monthName = new Intl.DateTimeFormat(LANGUAGE, { month: "long", ...utc });
const monthYear = new Intl.DateTimeFormat(LANGUAGE, { month: "short", year: "numeric", ...utc });
const number = new Intl.NumberFormat(LANGUAGE);

export const dayLong = (day) => long.format(new Date(day));
export const dayShort = (day) => short.format(new Date(day));
export const monthLong = (index) => monthName.format(new Date(Date.UTC(2024, index, 1)));
export const monthShort = (month) => monthYear.format(new Date(`${month}-01`));
export const count = (n) => number.format(n);

export const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

export function minutes(n) {
  if (n < 60) return `${n} min`;
  const hours = Math.floor(n / 60);
  return hours < 100 && n % 60 ? `${hours} h ${n % 60} min` : `${count(hours)} h`;
}

export function clock(second, withSeconds) {
  const parts = [Math.floor(second / 3600), Math.floor(second / 60) % 60, second % 60];
  return parts.slice(0, withSeconds ? 3 : 2).map((each) => String(each).padStart(2, "0")).join(":");
}

export function bytes(n) {
  for (const unit of ["bytes", "kB", "MB", "GB"]) {
    if (Math.abs(n) < 1000) return unit === "bytes" ? `${Math.round(n)} ${unit}` : `${n.toFixed(1)} ${unit}`;
    n /= 1000;
  }
  return `${n.toFixed(1)} TB`;
}

export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  return `${Math.round(100 * share)} %`;
}

export function span(days) {
  if (days > 730) return `${Math.round(days / 365)} years`;
  if (days > 60) return `${Math.round(days / 30)} months`;
  return `${Math.round(days)} days`;
}
