package kit

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Load is a bounded stream of requests: a few clients in a closed loop with a pause between requests.
type Load struct {
	stop chan struct{}
	wg   sync.WaitGroup

	mu    sync.Mutex
	total int
	seen  map[string]int
	wrong []string
}

// LoadOptions say what is asked and how.
type LoadOptions struct {
	URL     string
	Clients int           // 4
	Pause   time.Duration // 2 ms
	TLS     *tls.Config
	// FreshConnections opens a connection for each request.
	FreshConnections bool
	// HTTP2 speaks HTTP/2 over TLS.
	HTTP2 bool
	// Dial, if set, opens the connections (to a unix socket, say).
	Dial func(context.Context, string, string) (net.Conn, error)
	// Request, if set, changes each request before it is sent.
	Request func(*http.Request)
	// Key names an answer; the counts by name are in the result. Default: the answering upstream.
	Key func(*http.Response) string
	// Wrong says why an answer is wrong. Default: anything but 200.
	Wrong func(*http.Response, string) error
}

// Load starts asking. The caller stops it.
func (t *T) Load(o LoadOptions) *Load {
	if o.Clients == 0 {
		o.Clients = 4
	}
	if o.Pause == 0 {
		o.Pause = 2 * time.Millisecond
	}
	if o.Key == nil {
		o.Key = func(r *http.Response) string { return r.Header.Get("x-upstream") }
	}
	if o.Wrong == nil {
		o.Wrong = func(r *http.Response, body string) error {
			if r.StatusCode != http.StatusOK {
				return fmt.Errorf("%d %.80s", r.StatusCode, body)
			}
			return nil
		}
	}
	t.awaitListener(o)
	l := &Load{stop: make(chan struct{}), seen: map[string]int{}}
	for range o.Clients {
		l.wg.Add(1)
		go l.client(o)
	}
	var once sync.Once
	t.Cleanup(func() { once.Do(l.end) })
	return l
}

// awaitListener returns once somebody listens: until its listener serves, the proxy refuses connections.
func (t *T) awaitListener(o LoadOptions) {
	target, err := url.Parse(o.URL)
	if err != nil || o.Dial != nil {
		return
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if probe, err := net.DialTimeout("tcp", target.Host, time.Second); err == nil {
			probe.Close()
			return
		}
	}
}

func (l *Load) client(o LoadOptions) {
	defer l.wg.Done()
	transport := &http.Transport{TLSClientConfig: o.TLS, DisableKeepAlives: o.FreshConnections, ForceAttemptHTTP2: o.HTTP2, DialContext: o.Dial}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	for {
		select {
		case <-l.stop:
			return
		case <-time.After(o.Pause):
		}
		key, err := ask(client, o)
		l.mu.Lock()
		l.total++
		if err != nil {
			l.wrong = append(l.wrong, err.Error())
		} else {
			l.seen[key]++
		}
		l.mu.Unlock()
	}
}

func ask(client *http.Client, o LoadOptions) (string, error) {
	request, err := http.NewRequest(http.MethodGet, o.URL, nil)
	if err != nil {
		return "", err
	}
	if o.Request != nil {
		o.Request(request)
	}
	resp, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	return o.Key(resp), o.Wrong(resp, string(body))
}

func (l *Load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.wg.Wait()
}

// Seen is how many answers had this key so far.
func (l *Load) Seen(key string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen[key]
}

// Keys are those of all answers so far.
func (l *Load) Keys() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.seen))
}

// Total is how many requests were asked so far.
func (l *Load) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// StopClean ends the load and the scenario with it if a single request went wrong.
func (l *Load) StopClean(t *T) {
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	t.Expect(l.total > 0, "the load made no request")
	t.Expect(len(l.wrong) == 0, "%d of %d requests went wrong, first: %s", len(l.wrong), l.total, first(l.wrong))
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}
