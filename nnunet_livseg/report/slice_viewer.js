// Steps through the slices in #slices: slider, keys, wheel, drag, and links to #slice-NUMBER.
"use strict";
(() => {
  const section = document.getElementById("slices");
  const slices = JSON.parse(document.getElementById("slice-data").textContent);
  const find = (selector) => section.querySelector(selector);
  const [frame, picture, marks] = [find(".frame"), find(".frame img"), find(".frame svg")];
  const [liver, tumor, numbers] = [find(".liver"), find(".tumor"), find(".numbers")];
  const [slider, said, switchOutlines] = [find("input[type=range]"), find("output"), find("input[type=checkbox]")];
  const name = slider.dataset.name;
  const PAGE = 10, DRAG_PX = 6, WHEEL_PX = 50;

  const listed = (found) => {
    const shown = found.slice(0, 8).map(([number]) => number).join(", ");
    const more = found.length > 8 ? ` and ${found.length - 8} more` : "";
    return found.length ? `, lesion${found.length > 1 ? "s" : ""} ${shown}${more}` : "";
  };

  const numberAt = ([number, x, y]) => {
    const text = document.createElementNS(marks.namespaceURI, "text");
    text.setAttribute("x", x);
    text.setAttribute("y", y);
    text.textContent = number;
    return text;
  };

  const show = (position) => {
    slider.value = position; // the slider keeps it within its range
    const slice = slices[slider.value];
    const words = `${name} ${slice.number}${listed(slice.lesions)}`;
    picture.src = `data:image/jpeg;base64,${slice.jpeg}`;
    liver.setAttribute("d", slice.liver);
    tumor.setAttribute("d", slice.tumor);
    numbers.replaceChildren(...slice.lesions.map(numberAt));
    marks.setAttribute("aria-label", `axial ${words}`);
    slider.setAttribute("aria-valuetext", words);
    said.textContent = words;
  };
  const step = (by) => show(Number(slider.value) + by);
  const activate = () => slider.focus({ preventScroll: true });

  slider.addEventListener("input", () => show(Number(slider.value)));

  const switched = () => marks.classList.toggle("bare", !switchOutlines.checked);
  switchOutlines.addEventListener("change", switched);

  const keys = {
    ArrowUp: () => step(1), ArrowRight: () => step(1), ArrowDown: () => step(-1), ArrowLeft: () => step(-1),
    PageUp: () => step(PAGE), PageDown: () => step(-PAGE),
    Home: () => show(0), End: () => show(slices.length - 1),
    o: () => { switchOutlines.checked = !switchOutlines.checked; switched(); },
    Escape: () => document.activeElement.blur(),
  };
  section.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  // The wheel scrolls the page until the reader has chosen the picture.
  let turned = 0;
  frame.addEventListener("wheel", (event) => {
    if (event.ctrlKey || !section.contains(document.activeElement)) return;
    event.preventDefault();
    const px = event.deltaY * (event.deltaMode ? WHEEL_PX : 1);
    turned = Math.abs(px) >= WHEEL_PX ? Math.sign(px) * WHEEL_PX : turned + px;
    if (Math.abs(turned) < WHEEL_PX) return;
    step(-Math.sign(turned));
    turned = 0;
  }, { passive: false });

  let drag = null;
  frame.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    drag = { x: event.clientX, from: Number(slider.value) };
    frame.setPointerCapture(event.pointerId);
    activate();
    event.preventDefault(); // keeps the focus on the slider
  });
  frame.addEventListener("pointermove", (event) => {
    if (drag) show(drag.from + Math.trunc((event.clientX - drag.x) / DRAG_PX));
  });
  for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => { drag = null; });

  const jump = () => {
    const found = /^#slice-(\d+)$/.exec(location.hash);
    const position = found ? slices.findIndex((slice) => slice.number === Number(found[1])) : -1;
    if (position < 0) return;
    show(position);
    section.scrollIntoView();
    activate();
  };
  addEventListener("hashchange", jump);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (link && link.hash && link.hash === location.hash) jump(); // the same link again changes no hash
  });

  find(".viewer").hidden = false;
  show(Number(slider.value));
  jump();
})();
