package scenarios

import (
	"bytes"
	"context"
	"io"
	"iter"
	"net"
	"net/http"

	"nuncio/conformance/control-planes/kit"
)

// dialTo opens a load's connections as streams of the tunnel to one address.
func dialTo(z *kit.Ztunnel, authority string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return z.Dial(ctx, authority) }
}

// copyBack answers a POST with its own body.
func copyBack(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		return false
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	_, _ = w.Write(body)
	return true
}

// post sends a body and gives the length of the answer's.
func post(client *http.Client, host string, body []byte) (int, error) {
	resp, err := client.Post("http://"+host+"/", "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return len(answer), err
}

// identities are the values of x-identity an app has seen.
func (a *app) identities() iter.Seq[string] {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]bool{}
	for _, seen := range a.heard {
		for name := range seen {
			all[name] = true
		}
	}
	return func(yield func(string) bool) {
		for name := range all {
			if !yield(name) {
				return
			}
		}
	}
}

func readAll(resp *http.Response) (string, error) {
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}
