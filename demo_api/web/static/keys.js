// Asking for a key. It is kept for as long as the tab is open, and goes nowhere but into the header of requests.

/** Asks once, in a dialog. Gives the key, or null. */
export function askForKey(address, wasRefused) {
  const dialog = document.getElementById("key-dialog");
  const form = document.getElementById("key-form");
  const input = document.getElementById("key");
  const words = document.getElementById("key-words");
  words.textContent = wasRefused ? `${address} refused the key (401). Look at it again.` : `${address} answers only those who have a key (401).`;
  input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    let key = null;
    form.onsubmit = (event) => {
      event.preventDefault();
      // Nothing else can stand in a header.
      if (!/^[\x21-\x7e]+$/.test(input.value.trim())) {
        words.textContent = "A key is made of visible ASCII characters, without spaces.";
        input.focus();
        return;
      }
      key = input.value.trim();
      dialog.close();
    };
    form.querySelector(".give-up").onclick = () => dialog.close();
    dialog.addEventListener("close", () => resolve(key), { once: true });
  });
}
