package scenarios

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"nuncio/conformance/control-planes/kit"
)

// site is what most scenarios have: a dialect, an admin port and a listener's port.
type site struct {
	*kit.T
	d      dialect
	admin  int
	port   int
	client *http.Client
}

func with(d dialect, run func(*site)) func(*kit.T) {
	return func(t *kit.T) {
		transport := &http.Transport{DisableKeepAlives: true}
		s := &site{T: t, d: d, admin: t.Port(), port: t.Port(), client: &http.Client{Timeout: 5 * time.Second, Transport: transport}}
		run(s)
	}
}

// proxy starts the proxy under an ADS server.
func (s *site) proxy(xds int) *kit.Proxy { return s.proxyWith(xds, "", "") }

func (s *site) proxyWith(xds int, ads, source string) *kit.Proxy {
	return s.Proxy("proxy", s.admin, adsBootstrap(s.admin, xds, s.d, ads, source), "-l", "info")
}

func (s *site) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", s.port, path) }

// answer is one request on a new connection.
type answer struct {
	status int
	body   string
	header http.Header
}

func (s *site) ask(path string) (answer, error) {
	resp, err := s.client.Get(s.url(path))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(body), resp.Header}, err
}

func readBody(resp *http.Response) (string, error) {
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// status waits until a path answers with this status.
func (s *site) status(path string, want int) {
	s.Eventually(10*time.Second, fmt.Sprintf("%s answers %d", path, want), func() error {
		a, err := s.ask(path)
		if err == nil && a.status != want {
			err = fmt.Errorf("it answers %d %.60q", a.status, a.body)
		}
		return err
	})
}

// body waits until a path is answered 200 with this body (an upstream's name).
func (s *site) body(path, want string) {
	s.Eventually(10*time.Second, path+" is answered by "+want, func() error {
		a, err := s.ask(path)
		if err == nil && (a.status != http.StatusOK || a.body != want) {
			err = fmt.Errorf("it answers %d %.60q", a.status, a.body)
		}
		return err
	})
}

// stat waits until a counter or gauge has this value.
func (s *site) stat(proxy *kit.Proxy, name string, want int) {
	s.Eventually(10*time.Second, fmt.Sprintf("%s is %d", name, want), func() error {
		if n := proxy.Stat(name); n != want {
			return fmt.Errorf("it is %d", n)
		}
		return nil
	})
}

// still holds a fact for a while: the check must not fail once.
func (s *site) still(during time.Duration, what string, check func() error) {
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.OK(check(), what)
	}
}

// loadOf asks the site's listener.
func loadOf(s *site) kit.LoadOptions { return kit.LoadOptions{URL: s.url("/")} }

// waitFor lets the load run until so many answers of a kind were seen.
func waitFor(s *site, load *kit.Load, key string, more int) {
	goal := load.Seen(key) + more
	s.Eventually(20*time.Second, fmt.Sprintf("%d answers of %q under load", more, key), func() error {
		if seen := load.Seen(key); seen < goal {
			return fmt.Errorf("%d of %d", seen, goal)
		}
		return nil
	})
}

// version is the key of a load that counts answers by route version.
func version(r *http.Response) string { return r.Header.Get("x-version") }
