// A click on the preview sets the focal point; the numbers say it too, and work without this. A file that is chosen
// is shown before it is sent.
"use strict";

(function () {
  const begun = new WeakSet(); // no mark on the element: the admin clones rows of forms

  function begin(root) {
    if (begun.has(root)) return;
    begun.add(root);
    const preview = root.querySelector("[data-lazypix-preview]");
    const marker = root.querySelector("[data-lazypix-focus]");
    const numbers = [root.querySelector("[data-lazypix-x]"), root.querySelector("[data-lazypix-y]")];
    const file = root.querySelector("input[type=file]");

    function mark() {
      const [x, y] = numbers.map((number) => parseFloat(number.value));
      const known = isFinite(x) && isFinite(y) && preview.querySelector("img");
      marker.style.display = known ? "block" : "none";
      if (known) { marker.style.left = x + "%"; marker.style.top = y + "%"; }
    }

    function choose(event) {
      if (event.target.tagName !== "IMG" || numbers[0].disabled) return;
      const box = event.target.getBoundingClientRect();
      const percent = (at, start, length) => String(Math.round(Math.min(1, Math.max(0, (at - start) / length)) * 1000) / 10);
      numbers[0].value = percent(event.clientX, box.left, box.width);
      numbers[1].value = percent(event.clientY, box.top, box.height);
      numbers.forEach((number) => number.dispatchEvent(new Event("change", { bubbles: true })));
    }

    function show() {
      const chosen = file.files[0];
      if (!chosen) return;
      const shown = document.createElement("img");
      const address = URL.createObjectURL(chosen);
      shown.alt = "";
      shown.onload = () => { URL.revokeObjectURL(address); mark(); };
      shown.src = address;
      const old = preview.querySelector("img");
      if (old) old.replaceWith(shown); else preview.prepend(shown);
      numbers.forEach((number) => { number.value = ""; });
      mark();
    }

    preview.classList.add("lazypix-clicks");
    preview.addEventListener("click", choose);
    numbers.forEach((number) => { number.addEventListener("input", mark); number.addEventListener("change", mark); });
    file.addEventListener("change", show);
    mark();
  }

  function beginAll() { document.querySelectorAll("[data-lazypix-input]").forEach(begin); }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", beginAll); else beginAll();
  document.addEventListener("formset:added", beginAll); // the admin's rows that come later
})();
