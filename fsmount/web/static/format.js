// Days, times, sizes and shares as people write them. Days are local ones, as the server names them.

const WEEK = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const number = new Intl.NumberFormat("en-GB");

// Calendars need a thousand of these, and Intl takes its time.
export function dayLong(day) {
  const date = new Date(day);
  return `${WEEK[date.getUTCDay()]}, ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]} ${date.getUTCFullYear()}`;
}

export function dayShort(day) {
  const date = new Date(day);
  return `${WEEK[date.getUTCDay()].slice(0, 3)}, ${date.getUTCDate()} ${MONTHS[date.getUTCMonth()].slice(0, 3)} ${date.getUTCFullYear()}`;
}

export const monthLong = (index) => MONTHS[index];
export const monthShort = (month) => `${MONTHS[Number(month.slice(5)) - 1].slice(0, 3)} ${month.slice(0, 4)}`;
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

// A sum of shares of the screen: 2.5 is two and a half screens.
export function screens(n) {
  if (n > 0 && n < 0.1) return "< 0.1 screens";
  return n < 10 ? `${n.toFixed(1)} screens` : counted(Math.round(n), "screen");
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
