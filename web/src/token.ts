// sessionStorage: the token ends with the tab that it was given to, and no other tab sees it.
const KEY = "ai-middleware:token";

export function storedToken(): string {
  return sessionStorage.getItem(KEY) ?? "";
}

export function storeToken(token: string): void {
  if (token) {
    sessionStorage.setItem(KEY, token);
  } else {
    sessionStorage.removeItem(KEY);
  }
}

/** `#token=…`, as the server prints it: a fragment never goes over the wire, and here it leaves the address bar. */
export function takeTokenFromAddress(): void {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    storeToken(token);
    history.replaceState(null, "", location.pathname + location.search);
  }
}
