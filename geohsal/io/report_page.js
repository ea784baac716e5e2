"use strict";
/* Layers are switched by the style sheet alone; only how much shows through needs a script. */
for (const slider of document.querySelectorAll("input.opacity")) {
  const layer = slider.closest(".map").querySelector(".layer-classes");
  const follow = () => layer.setAttribute("opacity", String(slider.value / 100));
  slider.addEventListener("input", follow);
  follow(); // a browser may have kept where the slider stood
}
