// The commands that do what the page does: for a shell as POSIX describes it.

/** A word of a shell, in single quotes, in which nothing means anything. */
export function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** JSON on one line. What a terminal would obey, or not show, is escaped: it can be pasted anywhere. */
export function json(body) {
  return JSON.stringify(body).replace(/[\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (character) =>
    `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** The fields of a request that a run was asked with; those that are null were left out. */
export function fieldsOf(asked) {
  const names = ["prompt", "max_tokens", "temperature", "top_p", "seed"];
  const given = names.filter((name) => asked[name] !== null && asked[name] !== undefined);
  return Object.fromEntries(given.map((name) => [name, asked[name]]));
}

/** The command that sends a request; its key, if one is needed, is the shell's variable DEMO_API_KEY. */
export function post(server, path, body) {
  return join([`curl -X POST ${quote(server.url(path))}`, ...key(server),
    ...(body === undefined ? [] : [`-H ${quote("Content-Type: application/json")}`, `-d ${quote(json(body))}`])]);
}

/** The command that reads. */
export function get(server, path, ...flags) {
  return join([["curl", ...flags, quote(server.url(path))].join(" "), ...key(server)]);
}

function key(server) {
  return server.key === null ? [] : ['-H "Authorization: Bearer $DEMO_API_KEY"'];
}

/** On several lines where it is long. */
function join(words) {
  const line = words.join(" ");
  return line.length <= 80 ? line : words.join(" \\\n  ");
}
