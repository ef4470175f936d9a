// A part of a plain page that is changing, such as a host that starts, is drawn anew until it is not. What is typed
// elsewhere on the page stays; nothing moves under who has the focus in it.
const LOOK_MS = 2_000;

const drawnAnew = async (id) => {
  const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(30_000) });
  return new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(id);
};

for (let part = document.querySelector("[data-changing]"); part; ) {
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  try {
    const fresh = document.hidden || part.contains(document.activeElement) ? part : await drawnAnew(part.id);
    if (fresh && fresh !== part) part.replaceWith(fresh);
    part = fresh && "changing" in fresh.dataset ? fresh : null; // none: one has to log in again
    if (!part) document.querySelector(".said")?.remove();
  } catch (error) {
    console.debug("isotherm: the server does not answer yet", error);
  }
}
