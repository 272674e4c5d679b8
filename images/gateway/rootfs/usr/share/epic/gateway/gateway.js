// The code of a login address stands behind #, which browsers send to nobody: it is put into the
// form, and out of the address and the history.
const code = location.hash.slice(1);
if (code && location.pathname === "/-/login") {
  history.replaceState(null, "", location.pathname);
  document.getElementById("code").value = code;
  document.forms[0].submit();
}
