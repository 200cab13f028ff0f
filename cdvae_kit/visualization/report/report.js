"use strict";
(() => {
  // browsers keep some sixteen WebGL contexts and drop the oldest without asking
  const MOST_TURNING = 8;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const shade = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");

  const narrow = matchMedia("(max-width: 600px)");

  // the figures on a plane

  const figures = [...document.querySelectorAll(".figure")];

  // what the drawing calls generated, reference and published has another shade on a dark screen
  const SHADES = {"#1668b8": "--generated", "#8d99a6": "--reference", "#c2570c": "--published"};

  function themed(value) {
    if (typeof value === "string") return Object.hasOwn(SHADES, value) ? shade(SHADES[value]) : value;
    if (Array.isArray(value)) return value.map(themed);
    if (value === null || typeof value !== "object") return value;
    // the ink on a coloured cell was chosen for the scale as it is
    const inner = ([key, part]) => [key, key === "colorscale" ? part : themed(part)];
    return Object.fromEntries(Object.entries(value).map(inner));
  }

  function dressed(layout, more = {}) {
    const look = {...layout, ...more, font: {...layout.font, color: shade("--ink"), size: narrow.matches ? 10 : 13}};
    for (const axis of Object.keys(layout).filter((key) => /^[xy]axis\d*$/.test(key))) {
      look[axis] = {...layout[axis], gridcolor: shade("--grid")};
    }
    return look;
  }

  const SETTINGS = {
    displaylogo: false,
    responsive: true,
    scrollZoom: false,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  };

  async function drawFigures() {
    for (const place of figures) {
      const {data, layout} = read(place.id + "-data");
      await Plotly.newPlot(place, themed(data), dressed(layout), SETTINGS);
    }
    document.documentElement.dataset.drawn = figures.length;
  }

  // in one step: a page that is printed does not wait
  function redress(place, more) {
    Plotly.react(place, themed(read(place.id + "-data").data), dressed(place.layout, more), SETTINGS);
  }

  for (const query of [dark, narrow]) query.addEventListener("change", () => figures.forEach((place) => redress(place)));

  // the crystals

  const crystals = read("crystals-data");
  const turning = [];
  const hasWebGL = Boolean(document.createElement("canvas").getContext("webgl"));

  function unitSphere(rings = 10) {
    const around = 2 * rings, vertices = [[0, 0, 1], [0, 0, -1]], faces = [];
    for (let ring = 1; ring < rings; ring++) {
      for (let step = 0; step < around; step++) {
        const polar = Math.PI * ring / rings, turn = 2 * Math.PI * step / around;
        vertices.push([Math.sin(polar) * Math.cos(turn), Math.sin(polar) * Math.sin(turn), Math.cos(polar)]);
      }
    }
    const at = (ring, step) => 2 + ring * around + step % around;
    for (let step = 0; step < around; step++) {
      faces.push([0, at(0, step), at(0, step + 1)], [1, at(rings - 2, step + 1), at(rings - 2, step)]);
      for (let ring = 0; ring < rings - 2; ring++) {
        faces.push([at(ring, step), at(ring + 1, step), at(ring + 1, step + 1)]);
        faces.push([at(ring, step), at(ring + 1, step + 1), at(ring, step + 1)]);
      }
    }
    return {vertices, faces};
  }

  const sphere = unitSphere();

  function mesh(atoms) {
    const trace = {
      type: "mesh3d", x: [], y: [], z: [], i: [], j: [], k: [], text: [], hoverinfo: "text", color: atoms.color,
      name: atoms.symbol, flatshading: false,
      // to the right, up, away from the reader: over the left shoulder, however the crystal is turned
      lightposition: {x: -6e3, y: 8e3, z: -1e4},
      lighting: {ambient: 0.5, diffuse: 0.75, specular: 0.35, roughness: 0.4, fresnel: 0.1},
    };
    atoms.at.forEach((centre, atom) => {
      const first = trace.x.length;
      const where = atoms.symbol + "<br>" + atoms.where[atom].map((part) => part.toFixed(3)).join(", ");
      for (const [x, y, z] of sphere.vertices) {
        trace.x.push(centre[0] + atoms.radius * x);
        trace.y.push(centre[1] + atoms.radius * y);
        trace.z.push(centre[2] + atoms.radius * z);
        trace.text.push(where);
      }
      for (const [i, j, k] of sphere.faces) {
        trace.i.push(first + i);
        trace.j.push(first + j);
        trace.k.push(first + k);
      }
    });
    return trace;
  }

  function lines(edges, color, width) {
    const along = (axis) => edges.flatMap(([start, end]) => [start[axis], end[axis], null]);
    return {
      type: "scatter3d", mode: "lines", x: along(0), y: along(1), z: along(2), hoverinfo: "skip",
      line: {color, width},
    };
  }

  const camera = ([x, y, z]) => ({eye: {x, y, z}, up: {x: 0, y: 0, z: 1}, projection: {type: "orthographic"}});

  // one after the other: plotly fails on a picture that is taken away while it is drawn
  let work = Promise.resolve();
  const next = (job, stage) => (work = work.then(() => job(stage)));

  async function turn(stage) {
    if (stage.dataset.turning || !hasWebGL) return;
    stage.dataset.turning = "yes";
    turning.push(stage);
    if (turning.length > MOST_TURNING) still(turning[0]);
    const {atoms, edges, bonds, eye, aspect} = crystals[stage.dataset.crystal];
    const place = document.createElement("div");
    place.className = "turning";
    place.tabIndex = 0;
    place.setAttribute("role", "application");
    place.setAttribute("aria-label", stage.dataset.label + ", turned with the arrow keys or the mouse");
    stage.append(place);
    stage.querySelector(".turn").textContent = "still";
    const hidden = {visible: false, showspikes: false};
    await Plotly.newPlot(place, [...atoms.map(mesh), lines(bonds, "#8a8f96", 9), lines(edges, "#5a5a5a", 3)], {
      scene: {xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "manual",
        aspectratio: {x: aspect[0], y: aspect[1], z: aspect[2]}, camera: camera(eye)},
      margin: {l: 0, r: 0, t: 0, b: 0},
      showlegend: false,
      paper_bgcolor: "#ffffff",
    }, {displayModeBar: false, responsive: true, scrollZoom: false});
    let [elevation, azimuth] = [Math.asin(eye[2] / Math.hypot(...eye)), Math.atan2(eye[1], eye[0])];
    const far = Math.hypot(...eye);
    place.addEventListener("keydown", (event) => {
      const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, 0], ArrowDown: [-1, 0]}[event.key];
      if (!step) return;
      event.preventDefault();
      elevation = Math.max(-1.55, Math.min(1.55, elevation + 0.15 * step[0]));
      azimuth += 0.15 * step[1];
      const flat = far * Math.cos(elevation);
      Plotly.relayout(place, {"scene.camera": camera([
        flat * Math.cos(azimuth), flat * Math.sin(azimuth), far * Math.sin(elevation),
      ])});
    });
  }

  function still(stage) {
    if (!stage.dataset.turning) return;
    const place = stage.querySelector(".turning");
    delete stage.dataset.turning;
    turning.splice(turning.indexOf(stage), 1);
    Plotly.purge(place);
    place.remove();
    stage.querySelector(".turn").textContent = "turn";
  }

  for (const stage of document.querySelectorAll(".stage[data-crystal]")) {
    const button = stage.querySelector(".turn");
    if (!hasWebGL) {
      button.remove();
      continue;
    }
    button.addEventListener("click", () => next(stage.dataset.turning ? still : turn, stage));
    let soon;
    // who only scrolls past does not wait for a picture
    stage.addEventListener("pointerenter", (event) => {
      if (event.pointerType === "mouse") soon = setTimeout(() => next(turn, stage), 250);
    });
    stage.addEventListener("pointerleave", () => clearTimeout(soon));
  }
  if (!hasWebGL) document.querySelectorAll(".no-webgl").forEach((note) => { note.hidden = false; });

  // paper: figures as wide as the page, and in its colours

  addEventListener("beforeprint", () => {
    document.documentElement.dataset.paper = "yes";
    for (const place of figures) redress(place, {width: place.closest(".two") ? 305 : 640});
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.paper;
    for (const place of figures) redress(place, {width: undefined, autosize: true});
  });

  drawFigures();
})();
