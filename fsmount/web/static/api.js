// Asks the server. Only views below the address of the page are asked for.

export class Failure extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function ask(path, signal) {
  let answer;
  try {
    answer = await fetch(path, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(0, "The server has ended. Start it again with fsmount serve.");
  }
  if (!answer.ok) {
    const text = await answer.text();
    let told = text;
    try {
      told = JSON.parse(text).error;
    } catch { /* a plain sentence */ }
    throw new Failure(answer.status, told);
  }
  return answer;
}

const early = new Map();

// Asks for something that a view will get soon.
export function expect(path) {
  const answer = ask(path);
  answer.catch(() => {});
  early.set(path, answer);
}

export async function get(path, signal) {
  const answer = early.get(path) || ask(path, signal);
  early.delete(path);
  return (await answer).json();
}

// `object` makes the address of a picture that has changed another one.
export const view = (id, object, width, box) =>
  `picture/${id}/view?w=${width}&v=${object}` + (box ? `&box=${box.map(Math.round).join(",")}` : "");

export const exact = (id) => `picture/${id}/exact`;
