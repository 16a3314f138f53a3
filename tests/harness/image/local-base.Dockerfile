# Stand-ins for both bases of the image, from Debian packages: `make image-base` builds them.
FROM scratch AS build
ADD debian.tar /
COPY ca-certificates.crt /etc/ssl/certs/

# Like gcr.io/distroless/python3-debian13: Python, its libraries, and nothing that runs commands.
FROM scratch AS pick
ADD debian.tar /
RUN mkdir -p /out/var/lib/dpkg/status.d /out/etc/ssl/certs /out/tmp \
    && for package in base-files libbz2-1.0 libc6 libcrypt1 libdb5.3t64 libexpat1 libffi8 libgcc-s1 liblzma5 \
        libncursesw6 libpython3.13-minimal libpython3.13-stdlib libreadline8t64 libsqlite3-0 libssl3t64 libtinfo6 \
        libuuid1 libzstd1 media-types netbase python3.13-minimal tzdata zlib1g; \
    do \
        dpkg -s "$package" > "/out/var/lib/dpkg/status.d/$package" || exit 1; \
        dpkg -L "$package" | grep -vE '^/(\.|usr/share/(bug|lintian|locale|man).*)$' >> /files; \
    done \
    && tar -c --no-recursion --ignore-failed-read -T /files | tar -x -C /out \
    && cp /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ \
    && chmod 1777 /out/tmp \
    && ln -s python3.13 /out/usr/bin/python3 \
    && echo 'nonroot:x:65532:65532::/home/nonroot:/sbin/nologin' > /out/etc/passwd \
    && echo 'nonroot:x:65532:' > /out/etc/group

FROM scratch AS base
COPY --from=pick /out /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
