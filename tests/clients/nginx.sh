# An nginx for the tests that need a web server; sourced after lib.sh.
needs nginx-light nginx
needs openssl openssl

# Makes a certificate for 127.0.0.1 and a file of 1 MB; starts nginx, which serves it at http://127.0.0.1:$port/file
# and https://127.0.0.1:$tls_port/file, through a slow upstream (4 seconds) at /slow, and what was asked at /echo?...
serve() {
    local slow_port
    port=$(free_port)
    tls_port=$(free_port)
    slow_port=$(free_port)
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=colib \
        -addext subjectAltName=IP:127.0.0.1 -keyout "$scratch/key.pem" -out "$scratch/ca.pem" 2>"$scratch/req.log" ||
        fail "openssl req: $(<"$scratch/req.log")"
    mkdir "$scratch/files" "$scratch/temp"
    head -c 1048576 /dev/urandom >"$scratch/files/file"
    cp "$scratch/files/file" "$scratch/files/slow"
    cat >"$scratch/nginx.conf" <<CONF
daemon off;
master_process off;
pid $scratch/nginx.pid;
error_log stderr warn;
events { worker_connections 1024; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    keepalive_requests 100000;
    keepalive_timeout 120;
    client_body_temp_path $scratch/temp/body;
    proxy_temp_path $scratch/temp/proxy;
    fastcgi_temp_path $scratch/temp/fastcgi;
    uwsgi_temp_path $scratch/temp/uwsgi;
    scgi_temp_path $scratch/temp/scgi;
    root $scratch/files;
    server {
        listen 127.0.0.1:$port;
        listen 127.0.0.1:$tls_port ssl backlog=1024;
        ssl_certificate $scratch/ca.pem;
        ssl_certificate_key $scratch/key.pem;
        location / { }
        location /echo { return 200 \$args; }
        location /slow { proxy_pass http://127.0.0.1:$slow_port; proxy_buffering off; }
    }
    server {
        listen 127.0.0.1:$slow_port;
        location / { limit_rate 256k; }
    }
}
CONF
    if (($(id -u) == 0)); then
        chown -R www-data "$scratch"
    fi
    start_server www-data nginx -e stderr -p "$scratch" -c "$scratch/nginx.conf"
    until_true listens "$port"
    until_true listens "$tls_port"
}
