// Where two texts differ, word by word.

/** The words of a text, each with the white space before it; joined they are the text again. */
export function words(text) {
  return text.match(/\s*\S+|\s+/g) ?? [];
}

/**
 * Both texts in pieces `{text, shared}`: shared words stand in both, in the same order, and are as many as can be.
 */
export function marked(one, other) {
  const ours = words(one);
  const theirs = words(other);
  let start = 0;
  while (start < ours.length && start < theirs.length && ours[start] === theirs[start]) start += 1;
  let end = 0;
  while (end < Math.min(ours.length, theirs.length) - start && ours.at(-1 - end) === theirs.at(-1 - end)) end += 1;
  const [left, right] = inTheMiddle(ours.slice(start, ours.length - end), theirs.slice(start, theirs.length - end));
  const whole = (flags, length) => [...Array(start).fill(true), ...flags, ...Array(length).fill(true)];
  return [pieces(ours, whole(left, end)), pieces(theirs, whole(right, end))];
}

/** Which words of each are shared: the longest common subsequence. */
function inTheMiddle(ours, theirs) {
  const width = theirs.length + 1;
  const lengths = new Uint16Array((ours.length + 1) * width); // of the common rest, from here on
  for (let i = ours.length - 1; i >= 0; i -= 1) {
    for (let k = theirs.length - 1; k >= 0; k -= 1) {
      lengths[i * width + k] = ours[i] === theirs[k]
        ? lengths[(i + 1) * width + k + 1] + 1
        : Math.max(lengths[(i + 1) * width + k], lengths[i * width + k + 1]);
    }
  }
  const left = Array(ours.length).fill(false);
  const right = Array(theirs.length).fill(false);
  for (let i = 0, k = 0; i < ours.length && k < theirs.length;) {
    if (ours[i] === theirs[k]) left[i++] = right[k++] = true;
    else if (lengths[(i + 1) * width + k] >= lengths[i * width + k + 1]) i += 1;
    else k += 1;
  }
  return [left, right];
}

function pieces(all, flags) {
  const found = [];
  all.forEach((word, number) => {
    const last = found.at(-1);
    if (last?.shared === flags[number]) last.text += word;
    else found.push({ text: word, shared: flags[number] });
  });
  return found;
}
