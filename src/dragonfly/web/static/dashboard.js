// What every page of the dashboard does first: somebody is signed in, and the page speaks their language.

import { signInAddress } from "./api.js";
import { begin } from "./form.js";
import { onSignedOutElsewhere, stored } from "./session.js";

/** Runs `work` for who is signed in; anybody else is led to the sign-in page. */
export async function inside(work) {
  await begin(async () => {
    if (stored() === null) {
      location.replace(signInAddress());
      return;
    }
    onSignedOutElsewhere(() => location.replace(signInAddress()));
    await work();
  });
}
